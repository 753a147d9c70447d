"""All dictionaries of the study in one table of metrics and one of training curves."""

from actspace import provenance, tables
from actspace.jobs import begin


def main(job):
    begin(job)
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    tables.write_both(job.output.metrics, tables.concat(job.input.metrics), made_by)
    tables.write_both(job.output.curves, tables.concat(job.input.curves), made_by)


if __name__ == "__main__":
    main(snakemake)
