"""Planning stays linear in the shards: no pattern that every file matches, and lists in place of shards."""

from __future__ import annotations

import importlib.util
from types import ModuleType, SimpleNamespace

import pytest
from tiny import ROOT

from planning import RULES, Plan


def benchmark() -> ModuleType:
    """Load the benchmark that plans a large study."""
    spec = importlib.util.spec_from_file_location("plan_benchmark", ROOT / "tests" / "benchmarks" / "plan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs(shards: int) -> dict[str, int]:
    """Count what stages take in of a large study with so many shards."""
    paths = Plan(benchmark().config(shards)).paths
    here = {"dictionaries": "residual", "capture": "contexts", "hook": "blocks.5.hook_resid_post", "split": "test"}
    wildcards = SimpleNamespace(**here, data="real")
    return {
        "fit": len(paths.fit_data("train")(wildcards)),
        "metrics": len(paths.fit_data("test")(wildcards)),
        "moments": len(paths.training_shards(wildcards)),
        "surrogate": len(paths.shards_of_split(wildcards)),
        "splice": len(paths.splice_tokens(wildcards)),
        "report": len(paths.study_receipts()),
    }


def test_what_a_stage_takes_in_does_not_grow_with_the_shards():
    assert inputs(20) == inputs(200)


def test_the_name_of_the_study_is_no_wildcard():
    """Snakemake looks a file up by what stands before the first wildcard of a pattern: were it this one, each would be compared with all patterns."""
    text = "".join(path.read_text() for path in RULES.glob("*.smk"))
    assert 'R = f"results/{STUDY.study}"' in text
    assert "{study}" not in text


@pytest.mark.slow
def test_two_thousand_shards_at_twelve_hooks_are_planned_in_twenty_seconds(tmp_path):
    """CPU time and not the clock, which other work on the machine would stretch."""
    seconds, jobs = benchmark().planned(tmp_path, 2000)
    assert jobs == 2000
    assert seconds < 20
