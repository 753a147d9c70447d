"""The report: one self-contained page."""

from datetime import date

from actspace import manifest, provenance, tables
from actspace.jobs import begin
from actspace.report import study


def main(job):
    begin(job)
    found = tables.by_name(job.input.tables)
    html = study.render(
        job.params.cfg, found, job.input.figures, manifest.read_receipts(job.input.receipts), date.today().isoformat()
    )
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    provenance.write(job.output.page, lambda path: path.write_text(html, encoding="utf-8"), made_by)


if __name__ == "__main__":
    main(snakemake)
