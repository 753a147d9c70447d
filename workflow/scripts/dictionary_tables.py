"""All dictionaries of the study in one table each of metrics, firing frequencies, pre-activations and training curves."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables


def main(job):
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write_both(job.output.metrics, tables.concat(job.input.metrics), made_by)
    tables.write(job.output.densities, tables.concat(job.input.densities), made_by)
    tables.write(job.output.preactivations, tables.concat(job.input.preactivations), made_by)
    tables.write_both(job.output.curves, tables.concat(job.input.curves), made_by)


main(snakemake)
