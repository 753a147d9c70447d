from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from actspace.report import timings

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def bench(folder: Path, name: str, seconds: float, memory: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:01\t{memory}\t1\t1\t1\t0\t0\t50.00\t1.5\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bench(tmp_path, "toy.tsv", 100.0, "50.00")
    bench(tmp_path, "sae/residual/blocks.0.hook_resid_post/real/topk-n48-k4-s0.tsv", 90.5, "800.25")
    bench(tmp_path, "sae/residual/blocks.0.hook_resid_post/gaussian/topk-n48-k4-s0.tsv", 30.25, "NA")
    bench(tmp_path, "claims.tsv", 0.2, "-")
    return tmp_path


def test_jobs_are_summed_by_rule_the_costliest_first(folder):
    expected = pd.DataFrame(
        [("sae", 2, 120.75, 90.5, 800.25), ("toy", 1, 100.0, 100.0, 50.0), ("claims", 1, 0.2, 0.2, np.nan)],
        columns=["rule", "jobs", "total_s", "longest_s", "max_rss_mb"],
    )
    pd.testing.assert_frame_equal(timings.summed(folder), expected)


@pytest.mark.parametrize("text", ["", HEADER, "edited by hand\n1\n", f"{HEADER}soon\tx\ty\n", f"{HEADER}1.5\n"])
def test_a_damaged_file_is_left_out(folder, text):
    (folder / "toy.tsv").write_text(text)
    assert list(timings.summed(folder)["rule"]) == ["sae", "claims"]


def test_without_benchmarks_there_are_no_rows(tmp_path):
    assert timings.summed(tmp_path / "benchmarks").empty
