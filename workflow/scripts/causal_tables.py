"""Effects of probe directions on answers: one row per probe, place, sign and statistic."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.probes import causal_statistics


def main(job):
    runs = tables.concat(job.input.runs)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write_both(job.output.effects, causal_statistics.summarise(runs, job.params.cfg["seed"]), made_by)


main(snakemake)
