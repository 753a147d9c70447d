"""Every hook point whose moments the study uses: counts, norms, distances, angles, rank."""

from actspace.jobs import begin

begin(snakemake)

import pandas as pd

from actspace import provenance, tables
from actspace.activations import moments


def main(job):
    rows = [
        place | moments.describe(moments.load(path))
        for place, path in zip(job.params.cfg["places"], job.input.moments, strict=True)
    ]
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write_both(job.output.table, pd.DataFrame(rows), made_by)


main(snakemake)
