"""All walks between prompts in one table, and their statistics by site."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.perturbations import region_statistics


def main(job):
    walks = tables.concat(job.input.regions)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write(job.output.regions, walks, made_by)
    tables.write_both(
        job.output.statistics, region_statistics.region_statistics(walks, job.params.cfg["seed"]), made_by
    )


main(snakemake)
