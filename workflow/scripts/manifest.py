"""Every current file of the study with its sha256."""

from actspace.jobs import begin

begin(snakemake)

from pathlib import Path

from actspace import manifest


def main(job):
    manifest.write(Path(job.output.manifest), job.input)


main(snakemake)
