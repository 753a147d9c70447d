"""Every current file of the study with its sha256."""

from pathlib import Path

from actspace import manifest
from actspace.jobs import begin


def main(job):
    begin(job)
    manifest.write(Path(job.output.manifest), job.input)


if __name__ == "__main__":
    main(snakemake)
