"""Fits to the same data, matched latent by latent: one row for each ordered pair that differs in one respect."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.dictionaries import base, matching


def main(job):
    cfg = job.params.cfg
    fits = base.load_fits(job.input.fits)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write(job.output.table, matching.match_all(fits, cfg["labels"], cfg["seed"]), made_by)


main(snakemake)
