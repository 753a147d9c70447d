"""Every figure of the study, drawn from its tables, with the text of its caption."""

from pathlib import Path

from actspace import provenance, tables
from actspace.jobs import log_to
from actspace.report import figures


def main(job):
    log_to(job.log[0])
    found = tables.by_name(job.input.tables)
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    for path in job.output.figures:
        spec = figures.by_id(Path(path).stem)
        svg = spec.svg(found)
        provenance.write(path, lambda temporary, svg=svg: temporary.write_text(svg, encoding="utf-8"), made_by)


if __name__ == "__main__":
    main(snakemake)
