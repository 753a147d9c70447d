"""Count, mean and covariance of the training rows of one hook, in float64, with norms, distances and angles."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance
from actspace.activations import moments


def main(job):
    found = moments.of_files(job.input.activations, job.params.cfg["select"], job.params.cfg["seed"])
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    provenance.write(job.output.moments, lambda path: moments.save(path, found), made_by)


main(snakemake)
