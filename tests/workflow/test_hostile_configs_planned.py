"""Changed configs through `snakemake -n` itself: each plans, or ends with exit code 1 and lines of ours; no traceback, no path elsewhere."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from test_hostile_configs import CHANGES, changed, is_inside
from tiny import TinyStudy

OUTPUTS = re.compile(r"^ +output: (.+)$", re.MULTILINE)
OF_THE_PROFILE = "Using workflow specific profile "
# A failure is shown as it was found: to look for a smaller one takes hundreds of runs.
TRIED = settings(
    max_examples=50,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    return TinyStudy(tmp_path_factory.mktemp("hostile"), "gpt2")


@pytest.mark.slow
@TRIED
@given(CHANGES)
def test_fifty_changed_configs_plan_or_are_refused(study: TinyStudy, changes: Any):
    try:
        text = json.dumps(changed(changes), default=str)
    except (TypeError, ValueError):  # what JSON cannot write; the loader is tried with such files in the unit tests
        return
    (study.folder / "config" / "config.yaml").write_text(text)
    run = study.snakemake("-n")
    assert "Traceback" not in run.text, run.text
    if run.code:
        lines = [line for line in run.text.splitlines() if line.strip() and not line.startswith(OF_THE_PROFILE)]
        assert run.code == 1
        assert all(line.startswith("config/config.yaml: ") for line in lines) or is_of_snakemake(run.text), run.text
    files = [file for line in OUTPUTS.findall(run.text) for file in line.split(", ")]
    assert all(is_inside(file) for file in files)


def is_of_snakemake(text: str) -> bool:
    """Say whether Snakemake itself names an input file of the user that is not there."""
    return "MissingInputException" in text
