"""The list of the shards of one capture, hook and split."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, shards


def main(job):
    made_by = provenance.of(job.config["study"], job.rule, job.params, [])
    shards.write(job.output.files, shards.sums(job.input.shards), made_by)


main(snakemake)
