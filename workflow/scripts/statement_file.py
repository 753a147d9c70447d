"""One CSV file of statements, fetched from its address."""

from actspace.jobs import begin

begin(snakemake)

from pathlib import Path

from actspace import provenance, sources


def main(job):
    made_by = provenance.of("resources", job.rule, job.params, job.input)
    provenance.write(job.output.csv, lambda path: sources.fetch_file(job.params.cfg["address"], Path(path)), made_by)


main(snakemake)
