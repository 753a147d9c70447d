import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import actspace
from actspace.errors import StudyError
from actspace.perturbations.families import (
    BASES,
    DIRECTIONS,
    Family,
    parse_base,
    parse_direction,
    pattern,
    sources,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("toward_real", {"kind": "toward_real", "targeted": True}),
        ("decoder_active", {"kind": "decoder_active", "source": "dictionary"}),
        ("minus_decoder_dead_x8", {"kind": "decoder_dead", "source": "dictionary", "sign": -1, "count": 8}),
        ("cluster_difference", {"kind": "cluster_difference", "source": "clusters"}),
        ("probe_mass_mean", {"kind": "probe", "source": "probe", "probe": "mass_mean"}),
        ("minus_probe_l1", {"kind": "probe", "source": "probe", "sign": -1, "probe": "l1"}),
    ],
)
def test_a_direction_is_taken_apart(name, expected):
    assert parse_direction(name) == Family(name, **expected)


def test_a_base_is_taken_apart():
    assert parse_base("minus_latents") == Family("minus_latents", "minus_latents", "dictionary")
    assert parse_base("plus_latents_x12") == Family("plus_latents_x12", "plus_latents", "dictionary", count=12)


@pytest.mark.parametrize(
    "name",
    ["decoder_active_x1", "decoder_active_x08", "minus_isotropic", "isotropic_x2", "probe_", "decoder", "probe", ""],
)
def test_a_name_that_means_nothing_is_refused(name):
    with pytest.raises(StudyError, match=f"directions: '{name}' is unknown; use one of toward_real, "):
        parse_direction(name)


def test_the_nearest_name_is_suggested():
    with pytest.raises(StudyError, match=r"\[minus_\]decoder_active\[_x<m>\].*; did you mean 'decoder_inactive'\?$"):
        parse_direction("decoder_inactiv")


def test_sources_name_the_first_that_needs_each():
    found = sources(["real", "plus_latents_x4"], ["isotropic", "decoder_dead", "minus_probe_mass_mean"])
    assert found == {"dictionary": "plus_latents_x4", "probe": "minus_probe_mass_mean"}
    assert sources(["real", "isotropic_random"], ["principal_component", "toward_real"]) == {}


def test_the_pattern_accepts_what_is_parsed():
    for kinds, parse in ((BASES, parse_base), (DIRECTIONS, parse_direction)):
        for name in (
            "real",
            "plus_latents_x4",
            "plus_latents_x1",
            "minus_decoder_dead_x30",
            "probe_mass_mean",
            "probe",
        ):
            try:
                parse(name)
            except StudyError:
                assert not re.search(pattern(kinds), name)
            else:
                assert re.search(pattern(kinds), name)


def test_names_are_read_without_torch():
    code = "import sys, json, actspace.perturbations.families; print(json.dumps('torch' in sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(Path(actspace.__file__).parents[1])}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(out.stdout) is False
