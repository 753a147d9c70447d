"""A tiny study of every stage, end to end."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from tiny import TinyStudy

from actspace import stages, verify
from actspace.report import timings


def test_a_finished_study_has_a_report_and_nothing_left_to_do(finished: TinyStudy):
    assert (finished.results / "report.html").stat().st_size > 100_000
    assert "Nothing to be done" in finished.snakemake("-n").text


def test_the_manifest_lists_every_result_and_agrees_with_the_files(finished: TinyStudy):
    listed = set(json.loads((finished.results / "manifest.json").read_text())["files"])
    files = {p.relative_to(finished.results).as_posix() for p in finished.results.rglob("*") if p.is_file()}
    results = {f for f in files if not f.startswith("logs/") and f != "manifest.json" and f"{f}.json" in files}
    assert listed == results
    assert verify.check(finished.results) == verify.Findings()


def test_the_report_shows_every_figure_of_the_study(finished: TinyStudy):
    page = (finished.results / "report.html").read_text()
    figures = sorted((finished.results / "figures").glob("*.svg"))
    assert len(figures) >= 12
    assert page.count("<svg") >= len(figures)
    assert not re.search(r'(src|href)="https?:[^"]*\.(js|css|png|svg|woff2?)"', page)


def test_the_report_shows_what_each_rule_took(finished: TinyStudy):
    page = (finished.results / "report.html").read_text()
    timed = set(re.findall(r"<tr>\s*<td>(\w+)</td>", page[page.index('<section id="timings">') :]))
    last = {"report", "manifest", "archive"}  # these run after the page is made
    assert timed - last == set(timings.summed(finished.results / "benchmarks")["rule"]) - last
    assert {"model", "tokens_contexts", "activations_contexts", "sae", "perturbation", "claims", "figures"} <= timed


def test_every_claim_has_an_interval_and_a_verdict(finished: TinyStudy):
    claims = pd.read_csv(finished.results / "tables" / "claims.csv")
    assert len(claims) >= 15
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"}
    assert (claims["low"] <= claims["value"]).all()
    assert (claims["value"] <= claims["high"]).all()


def test_the_closing_line_tells_time_and_cost(finished: TinyStudy):
    (finished.results / "report.html").unlink()
    run = finished.snakemake()
    line = next(line for line in run.text.splitlines() if line.startswith("actspace: tiny is done"))
    assert re.search(
        r"\d+ s in this run; the study took [\d,]+ full-depth token passes; report: results/tiny/report.html", line
    )


def test_snakemakes_own_report_is_made(finished: TinyStudy):
    run = finished.snakemake("--report", "report.zip")
    assert run.code == 0, run.text
    assert (finished.folder / "report.zip").stat().st_size > 100_000


@pytest.mark.slow  # test_slurm.py and test_checkpoints.py run most of it too
def test_the_whole_dag_runs_on_other_architectures_in_the_centred_gauge(centred: TinyStudy):
    checks = pd.read_parquet(centred.results / "selfcheck.parquet")
    assert (checks["relative_deviation"] <= checks["tolerance"]).all()
    assert (centred.results / "report.html").exists()


def test_two_runs_give_identical_results(finished: TinyStudy, tmp_path):
    again = TinyStudy(tmp_path, finished.architecture)
    residual = "dictionaries/residual/blocks.0.hook_resid_post/real"
    names = [f"tables/{name}.csv" for name in ("probe_summary", "perturbation_comparisons", "toy_truth")]
    names += [f"{residual}/{file}" for fit in ("kmeans-k4-s0", "topk-n48-k4-s0") for file in stages.fit_files(fit)]
    run = again.snakemake(*(f"results/tiny/{name}" for name in names))
    assert run.code == 0, run.text[-3000:]
    for name in names:
        assert (finished.results / name).read_bytes() == (again.results / name).read_bytes(), name
