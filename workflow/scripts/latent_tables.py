"""One table of the study, put together from those of its hook points, with a CSV beside it."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables


def main(job):
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write_both(job.output.table, tables.concat(job.input.parts), made_by)


main(snakemake)
