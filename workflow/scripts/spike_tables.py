"""The read-outs between all pairs in one table, and by how much they rise half-way."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.perturbations.spike_statistics import spike_statistics


def main(job):
    table = tables.concat(job.input.spikes)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write(job.output.spikes, table, made_by)
    tables.write_both(job.output.statistics, spike_statistics(table, job.params.cfg["seed"]), made_by)


main(snakemake)
