"""All planes in one table and their activations in another; statistics of both."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.perturbations.plane_statistics import plane_statistics


def main(job):
    points, corners = tables.concat(job.input.points), tables.concat(job.input.corners)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write(job.output.points, points, made_by)
    tables.write_both(job.output.corners, corners, made_by)
    tables.write_both(job.output.statistics, plane_statistics(points, corners, job.params.cfg["seed"]), made_by)


main(snakemake)
