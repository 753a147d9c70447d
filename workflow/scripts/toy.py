"""The two-Gaussian toy of truth: probes against their closed forms, and what its picture draws."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.probes import toy


def main(job):
    truth, points, directions = toy.run(job.params.cfg["toy"], job.params.cfg["seed"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write_both(job.output.truth, truth, made_by)
    tables.write(job.output.points, points, made_by)
    tables.write(job.output.directions, directions, made_by)


main(snakemake)
