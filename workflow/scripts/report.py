"""The report: one self-contained page."""

from actspace.jobs import begin

begin(snakemake)

from datetime import date
from pathlib import Path

from actspace import manifest, provenance, tables
from actspace.report import study, timings


def main(job):
    found = tables.by_name(job.input.tables)
    today = date.today().isoformat()
    receipts = manifest.read_receipts(job.input.receipts)
    # Benchmarks are no input: they differ between equal runs, and one that is missing is no reason to run again.
    spent = timings.summed(Path(job.output.page).parent / "benchmarks")
    html = study.render(job.params.cfg, found, job.input.figures, receipts, spent, today)
    made_by = provenance.of(job.config["study"], job.rule, job.params, job.input).adding(date=today)
    provenance.write(job.output.page, lambda path: path.write_text(html, encoding="utf-8"), made_by)


main(snakemake)
