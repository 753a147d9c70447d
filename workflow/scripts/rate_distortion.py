"""The rate-distortion bound of a Gaussian source with the data's covariance, at every hook point with dictionaries."""

from actspace.jobs import begin

begin(snakemake)

import pandas as pd

from actspace import provenance, tables
from actspace.activations import moments
from actspace.dictionaries import rate_distortion


def main(job):
    parts = [
        rate_distortion.table(moments.load(path).covariance.numpy()).assign(**place)
        for place, path in zip(job.params.cfg["places"], job.input.moments, strict=True)
    ]
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write_both(job.output.table, pd.concat(parts, ignore_index=True), made_by)


main(snakemake)
