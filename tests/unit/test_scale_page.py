"""The page on scale: every number of its table follows from the rates and formulas that it states."""

from __future__ import annotations

from pathlib import Path

import pytest

from actspace import disk

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "scale.md").read_text()
TOKENS, SHARDS = 10**9, 2000
FORWARD, CEILING, SHARE = 1.31e6, 790e12, 0.4
SAE, KMEANS = 0.84e6, 0.176
WRITE, READ = 0.85e9, 1.14e9


def hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"


def column(d_model: int, hooks: int, forward: float, latents: int) -> dict[str, str]:
    """Work out one study's column of the table."""
    one_hook = disk.expect(TOKENS, d_model, "float16").size - disk.FILE_BYTES
    size, read = hooks * one_hook, one_hook / READ
    sae = max(TOKENS / SAE * d_model * latents / (768 * 24576), read)
    kmeans = KMEANS * TOKENS / 1e6 if d_model == 768 else 0.0
    return {
        "activations on the disk": f"{size / 1e12:.1f} TB",
        "one shard": f"{size / SHARDS / 1e9:.1f} GB",
        "jobs of captures": f"{SHARDS:,}",
        "forward": hours(forward),
        "write": hours(size / WRITE),
        "read one hook": hours(read),
        "one SAE (24,576 and 65,536 latents), one pass": hours(sae),
        "one SAE at each hook": hours(hooks * sae),
        "one pass of k-means, K = 16,384, one hook": hours(max(kmeans, read)),
    }


def table() -> dict[str, tuple[str, str]]:
    """Read the table of the two studies off the page."""
    section = PAGE.split("## The two studies")[1].split("## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    return {name: (first, second) for name, first, second in rows}


GPT2 = column(768, 12, TOKENS / FORWARD, 24576)
LARGE = column(8192, 4, 2 * 70e9 * TOKENS / (SHARE * CEILING), 65536)


@pytest.mark.parametrize("row", GPT2)
def test_a_row_of_the_table_follows_from_the_formulas(row):
    assert table()[row] == (GPT2[row], LARGE[row])


@pytest.mark.parametrize(
    "rate",
    [
        "1.31 million tokens/s",
        "790 TFLOP/s",
        "0.84 million vectors/s",
        "0.176 s",
        "0.85 GB/s",
        "1.14 GB/s",
        "(2 x d_model + 28)",
    ],
)
def test_the_rates_of_the_formulas_stand_on_the_page(rate):
    assert rate in PAGE
    assert disk.KEY_BYTES == 28


def test_a_hundred_passes_of_k_means_read_as_long_as_the_page_says():
    assert f"read for {100 * disk.expect(TOKENS, 768, 'float16').size / READ / 3600:.0f} hours" in PAGE
