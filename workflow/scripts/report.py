"""The report: one self-contained page."""

from actspace.jobs import begin

begin(snakemake)

from datetime import date

from actspace import manifest, provenance, tables
from actspace.report import study


def main(job):
    found = tables.by_name(job.input.tables)
    html = study.render(
        job.params.cfg, found, job.input.figures, manifest.read_receipts(job.input.receipts), date.today().isoformat()
    )
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input).adding(date=date.today().isoformat())
    provenance.write(job.output.page, lambda path: path.write_text(html, encoding="utf-8"), made_by)


main(snakemake)
