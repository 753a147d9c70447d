"""What the jobs of a study took: the benchmark files that Snakemake writes, summed by rule."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd

UNKNOWN = ("NA", "-")


def summed(folder: Path) -> pd.DataFrame:
    """Sum the benchmark files of a study by rule, the costliest rule first.

    Parameters
    ----------
    folder : Path
        `<rule>.tsv`, or `<rule>/...tsv` for rules of several jobs; it may be missing.

    Returns
    -------
    DataFrame with columns `rule`, `jobs`, `total_s`, `longest_s` and `max_rss_mb`, which is NaN where no job lasted
    until the first sample of its memory; jobs whose files are gone or damaged are left out
    """
    jobs = pd.DataFrame(_jobs(folder), columns=["rule", "s", "rss"])
    columns = {"jobs": ("s", "size"), "total_s": ("s", "sum"), "longest_s": ("s", "max"), "max_rss_mb": ("rss", "max")}
    rules = jobs.groupby("rule").agg(**columns)
    return rules.sort_values("total_s", ascending=False, kind="stable").reset_index()


def _jobs(folder: Path) -> Iterator[tuple[str, float, float]]:
    """Yield the rule, the seconds and the largest resident memory in MB of the last run of each job."""
    for path in sorted(folder.rglob("*.tsv")):
        with suppress(IndexError, KeyError, TypeError, ValueError):
            last = list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))[-1]
            rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
            yield rule, float(last["s"]), math.nan if last["max_rss"] in UNKNOWN else float(last["max_rss"])
