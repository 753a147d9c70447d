"""The figures of one part of the study, each drawn from its tables: SVG, PDF, PNG, and the caption."""

from actspace.jobs import begin

begin(snakemake)

from pathlib import Path

from actspace import provenance, tables
from actspace.report import figures


def main(job):
    found = tables.by_name(job.input.tables)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input)
    specs = figures.available_figures(found)
    for svg in map(Path, job.output.svg):
        for kind, content in specs[svg.stem].files(found).items():
            provenance.write(
                svg.with_suffix(f".{kind}"), lambda path, content=content: path.write_bytes(content), made_by
            )


main(snakemake)
