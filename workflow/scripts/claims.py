"""What was claimed, what was measured here, and the verdict; and the claims that this study does not test."""

from actspace.jobs import begin

begin(snakemake)

from actspace import provenance, tables
from actspace.claims import entries


def main(job):
    found = tables.by_name(job.input.tables)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    tables.write_both(job.output.claims, entries.evaluate(found), made_by)
    tables.write_both(job.output.untested, entries.untested(found), made_by)


main(snakemake)
