"""Structure beyond covariance: how much less variance each fit leaves unexplained of real data than of each null of them."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.dictionaries import structure


def main(job):
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    found = structure.beyond_nulls(tables.concat(job.input.metrics), tables.concat(job.input.draws))
    tables.write_both(job.output.table, found, made_by)


main(snakemake)
