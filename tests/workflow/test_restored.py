"""Results that came back from a backup or another machine, with whatever time stamps: they count as what they are."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_reruns import END, with_figures
from tiny import TinyStudy

from actspace import provenance
from faults import cut_short

# By default Snakemake compares files below 10 MB (the profile says so) by content, and receipts are below it: only files of the user can be larger.
NONE_BY_CONTENT = ("--max-checksum-file-size", "1")


@pytest.fixture
def restored(finished: TinyStudy, tmp_path: Path) -> TinyStudy:
    """A fresh clone into which the results were copied: every file, code too, is of another time, in no order."""
    study = object.__new__(TinyStudy)
    study.folder = tmp_path / "clone"
    shutil.copytree(finished.folder, study.folder)
    moments = random.Random(0)
    for path in sorted(study.folder.rglob("*")):
        moment = 1.7e9 + moments.uniform(0, 1e6)
        os.utime(path, (moment, moment))
    return study


def test_restored_results_rerun_nothing_and_an_edit_what_uses_it(restored: TinyStudy):
    assert restored.plan() == {}
    restored.write({**restored.config(), "toy": {**restored.config()["toy"], "points": 1000}})
    assert set(restored.plan()) == with_figures({"toy"} | END)


def test_a_damaged_receipt_of_a_capture_is_named_by_the_run(restored: TinyStudy):
    (receipt,) = restored.results.glob("activations/contexts/blocks.0.hook_resid_post/train-000.parquet.json")
    cut_short(receipt)
    run = restored.snakemake()
    assert f"actspace: {receipt.relative_to(restored.folder).with_suffix('')}: not as the receipt says" in run.text
    assert "Traceback" not in run.text


@pytest.mark.slow
def test_what_snakemake_judges_by_time_is_settled_by_one_touch(restored: TinyStudy):
    assert restored.plan(*NONE_BY_CONTENT)
    assert restored.snakemake("--touch", *NONE_BY_CONTENT).code == 0
    assert restored.plan(*NONE_BY_CONTENT) == {}
    restored.write({**restored.config(), "toy": {**restored.config()["toy"], "points": 1000}})
    assert set(restored.plan(*NONE_BY_CONTENT)) == with_figures({"toy"} | END)


@pytest.mark.slow
def test_without_snakemakes_records_one_touch_makes_them_anew(restored: TinyStudy):
    shutil.rmtree(restored.folder / ".snakemake")
    assert restored.snakemake("--touch", "--forceall").code == 0
    assert restored.plan() == {}
    restored.write({**restored.config(), "toy": {**restored.config()["toy"], "points": 1000}})
    assert set(restored.plan()) == with_figures({"toy"} | END)


def test_an_upgrade_reruns_the_stages_that_it_may_affect_only_when_asked(restored: TinyStudy):
    receipt = provenance.receipt_of(restored.results / "toy_superposition.parquet")
    older = receipt.read_text().replace(f'"numpy": "{np.__version__}"', '"numpy": "1.0"')
    assert older != receipt.read_text()
    receipt.write_text(older)
    os.utime(receipt, (1, 1))
    assert restored.plan() == {}
    command = [sys.executable, "-m", "actspace.upgrades", "results/tiny"]
    environment = {**os.environ, "PYTHONPATH": "workflow"}
    found = subprocess.run(command, cwd=restored.folder, capture_output=True, text=True, env=environment)
    assert found.stdout.split() == ["toy_superposition"], found.stderr
    again = restored.plan("--forcerun", *found.stdout.split())
    assert set(again) == with_figures({"toy_superposition", "spike_tables"} | END)
