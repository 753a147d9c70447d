"""Count, mean and covariance of the training rows of one hook, in float64, with norms, distances and angles."""

from actspace import provenance
from actspace.activations import moments
from actspace.jobs import begin


def main(job):
    begin(job)
    found = moments.of_files(job.input.activations, job.params.cfg["select"], job.params.cfg["seed"])
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    provenance.write(job.output.moments, lambda path: moments.save(path, found), made_by)


if __name__ == "__main__":
    main(snakemake)
