"""The lists of the shards of one capture and split: one for each hook."""

from actspace.jobs import begin

begin(snakemake)

from pathlib import Path

from actspace import provenance, shards


def main(job):
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    every = [item for part in job.input.parts for item in shards.read(part).items()]
    for path in job.output.lists:
        hook = Path(path).parent.name
        shards.write(path, {file: sha256 for file, sha256 in every if Path(file).parent.name == hook}, made_by)


main(snakemake)
