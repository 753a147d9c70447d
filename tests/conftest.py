from __future__ import annotations

import os

import pytest

# Two workers share the cores, and small tensors gain nothing from more threads.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep tests of one study, or else of one file, on one worker: studies are made once."""
    fixtures = getattr(item, "fixturenames", ())
    studies = [name for name in ("finished", "centred", "undisturbed") if name in fixtures]
    item.add_marker(pytest.mark.xdist_group(studies[0] if studies else item.path.stem))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of studies: they take longest, and the other worker meanwhile does all the rest."""
    items.sort(key=lambda item: "finished" not in getattr(item, "fixturenames", ()))
