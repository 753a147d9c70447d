"""One CSV file of statements, fetched from its address."""

from pathlib import Path

from actspace import provenance, sources
from actspace.jobs import begin


def main(job):
    begin(job)
    made_by = provenance.of("resources", job.rule, job.params, job.input)
    provenance.write(job.output.csv, lambda path: sources.fetch_file(job.params.cfg["address"], Path(path)), made_by)


if __name__ == "__main__":
    main(snakemake)
