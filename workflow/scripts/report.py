"""The report: one self-contained page."""

from actspace import manifest, provenance, tables
from actspace.jobs import log_to
from actspace.report import page


def main(job):
    log_to(job.log[0])
    html = page.of_study(
        cfg=job.params.cfg,
        tables=tables.by_name(job.input.tables),
        figures=list(job.input.figures),
        receipts=manifest.read_receipts(job.input.receipts),
    )
    made_by = provenance.of(job.wildcards.study, job.rule, job.params, job.input)
    provenance.write(job.output.page, lambda path: path.write_text(html, encoding="utf-8"), made_by)


if __name__ == "__main__":
    main(snakemake)
