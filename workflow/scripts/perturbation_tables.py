"""All experiments in one table of curves and one of thresholds; statistics of each arm, and comparisons of arms."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.perturbations import statistics


def main(job):
    seed = job.params.cfg["seed"]
    experiments = [
        (tables.read(c), tables.read(t)) for c, t in zip(job.input.curves, job.input.thresholds, strict=True)
    ]
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write(job.output.curves, tables.joined([curves for curves, _ in experiments]), made_by)
    tables.write_both(job.output.thresholds, tables.joined([thresholds for _, thresholds in experiments]), made_by)
    tables.write_both(
        job.output.statistics, tables.joined([statistics.summarise(*found, seed) for found in experiments]), made_by
    )
    tables.write_both(
        job.output.comparisons, tables.joined([statistics.compare(*found, seed) for found in experiments]), made_by
    )


main(snakemake)
