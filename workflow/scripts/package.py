"""One wheel of the Python package index, checked against its sha256."""

from actspace.jobs import begin

begin(snakemake)

from pathlib import Path

from actspace import provenance, sources


def main(job):
    sources.fetch_package(**job.params.cfg, destination=Path(job.output.wheel))
    provenance.stamp(job.output.wheel, provenance.of("resources", job.rule, job.params, job.input))


main(snakemake)
