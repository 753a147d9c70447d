"""One wheel of the Python package index, checked against its sha256."""

from pathlib import Path

from actspace import provenance, sources
from actspace.jobs import begin


def main(job):
    begin(job)
    sources.fetch_package(**job.params.cfg, destination=Path(job.output.wheel))
    provenance.stamp(job.output.wheel, provenance.of("resources", job.rule, job.params, job.input))


if __name__ == "__main__":
    main(snakemake)
