"""Every figure of the study, drawn from its tables."""

from actspace.jobs import begin

begin(snakemake)

from pathlib import Path

from actspace import provenance, tables
from actspace.report import figures


def main(job):
    found = tables.by_name(job.input.tables)
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    specs = figures.available_figures(found)
    for path in job.output.figures:
        svg = specs[Path(path).stem].svg(found)
        provenance.write(path, lambda temporary, svg=svg: temporary.write_text(svg, encoding="utf-8"), made_by)


main(snakemake)
