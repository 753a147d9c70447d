"""All triangles in one table and all subspaces in another; statistics of both."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.perturbations.optima_statistics import optima_statistics


def main(job):
    triangles, subspaces = tables.concat(job.input.triangles), tables.concat(job.input.subspaces)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write(job.output.triangles, triangles, made_by)
    tables.write_both(job.output.subspaces, subspaces, made_by)
    statistics = optima_statistics(triangles, subspaces, job.params.cfg["seed"])
    tables.write_both(job.output.statistics, statistics, made_by)


main(snakemake)
