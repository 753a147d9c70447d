"""Configs that no one in their right mind writes: each plans, or is refused with a line per mistake; none crashes, none writes elsewhere."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actspace.config import raw
from actspace.errors import StudyError
from planning import Plan, expected_files, refusal

WORDS = [
    *(
        "../x",
        "/etc/passwd",
        "..",
        ".",
        "",
        " ",
        "a/b",
        "CON",
        "nul",
        "-rf",
        "a\nb",
        "a\0b",
        "\ud800",
        "{study}",
        "{",
        "%s",
        "~",
        "$HOME",
    ),
    *(
        "x" * 300,
        "é" * 200,
        "\u202egnp",
        "ﬀ",
        "9" * 5000,
        "9" * 4000,
        "1e400",
        "nan",
        "inf",
        "3e-4",
        "0x10",
        "blocks.0.hook_resid_post",
    ),
    *(
        "https://x",
        "https://x/../y.csv",
        "https:///a.csv",
        "s3://bucket/x",
        "resources/statements/x.csv",
        "<script>",
        "blocks.{0..999999999999}.hook",
    ),
    *(
        "real",
        "isotropic",
        "decoder_active",
        "minus_decoder_active_x0",
        "plus_latents_x99999999999999999999",
        "mass_mean",
        "tiny",
        "all",
        "main",
    ),
]
NUMBERS = [
    0,
    -1,
    1,
    2,
    3,
    7,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    10**400,
    -(10**30),
    0.5,
    -0.0,
    1e-320,
    1e308,
    1e18,
    float("inf"),
    float("nan"),
]
ODD: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"kind": "hub"},
    {"kind": []},
    {1: 2},
    {None: 1},
    {"a\nb": 1},
    (1, 2),
    b"\xff",
    {1, 2},
]
JUNK = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(NUMBERS),
    st.sampled_from(ODD),
    st.text(max_size=8),
    st.integers(),
    st.floats(),
)
NESTED = st.recursive(
    JUNK,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inside, max_size=2),
    max_leaves=6,
)
KINDS = ("replace", "replace", "replace", "remove", "misspell", "add", "rename", "repeat", "borrow")
CHANGES = st.lists(st.tuples(st.integers(0, 2**16), st.sampled_from(KINDS), JUNK | NESTED), min_size=1, max_size=3)
BASE = tiny.config("gpt2") | {"seed": 3, "title": "t", "archive": {"authors": ["A"]}}
CLEAN_PART = r"[A-Za-z0-9][A-Za-z0-9._+!-]*"


def places(value: Any) -> list[tuple[Any, Any]]:
    """List every place of a config: what holds it, and its key or position there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def changed(changes: list[tuple[int, str, Any]]) -> dict[str, Any]:
    """Return the tiny study's config with some changes made to it, one after the other."""
    config = copy.deepcopy(BASE)
    for number, kind, junk in changes:
        if found := places(config):
            holder, key = found[number % len(found)]
            _change(holder, key, kind, copy.deepcopy(junk), found[(number * 31 + 7) % len(found)])
    return config


def _change(holder: Any, key: Any, kind: str, junk: Any, other: tuple[Any, Any]) -> None:
    if kind == "remove":
        del holder[key]
    elif kind == "borrow":
        holder[key] = copy.deepcopy(other[0][other[1]])
    elif isinstance(holder, list):
        holder.append(holder[key]) if kind == "repeat" else holder.__setitem__(key, junk)
    elif kind in ("misspell", "rename"):
        name = str(key)[:-1] if kind == "misspell" else junk
        holder[name if isinstance(name, str | int) else "x"] = holder.pop(key)
    else:
        holder["more" if kind == "add" else key] = junk


def outcome(config: Any) -> str:
    """Plan a config, or return the lines that refuse it; anything else is a crash."""
    plans: list[Plan] = []
    said = refusal(lambda: plans.append(Plan(config)))
    if not plans:
        assert all(line.startswith("config: ") and line.isprintable() for line in said.split("\n")), said
        assert max(map(len, said.split("\n"))) < 2000
        return said
    (plan,) = plans
    escaping = [path for path in plan.outputs() if not is_inside(path)]
    assert not escaping, escaping
    repr(plan.cfg), json.dumps(plan.cfg, allow_nan=False), expected_files(plan)
    return ""


def is_inside(path: str) -> bool:
    """Say whether a path lies in results/ or resources/ by its text alone, and can be a file's."""
    parts = path.split("/")
    plain = all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in parts)
    return plain and parts[0] in ("results", "resources") and len(parts) > 2 and "\0" not in path


def test_the_config_that_is_changed_plans():
    assert outcome(BASE) == ""


def tried(examples: int) -> Any:
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )


@tried(700)
@given(CHANGES)
def test_a_changed_config_plans_or_is_refused(changes):
    outcome(changed(changes))


@pytest.mark.slow
@tried(10_000)
@given(CHANGES)
def test_ten_thousand_changed_configs_plan_or_are_refused(changes):
    outcome(changed(changes))


@tried(100)
@given(NESTED)
def test_anything_for_a_config_is_refused(junk):
    assert outcome(junk)


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "..", ".hidden", "a/b", "a\\b", "x\n", "x" * 65, "", "results/../..", "{hook}", "a b"]
)
@pytest.mark.parametrize(
    "section",
    ["study", "tokens", "captures", "dictionaries", "probes", "perturbations", "optima", "regions", "statements"],
)
def test_a_name_that_is_no_plain_word_is_refused(section, name):
    config = copy.deepcopy(BASE)
    if section == "study":
        config["study"] = name
    else:
        config[section][name] = next(iter(config[section].values()))
    assert f"{section}" in outcome(config)


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ({"kind": "package", "name": "../../x", "version": "1", "sha256": "ab" * 32, "member": "a.gguf"}, "name"),
        ({"kind": "package", "name": "--index-url=x", "version": "1", "sha256": "ab" * 32, "member": "a.gguf"}, "name"),
        ({"kind": "package", "name": "x", "version": "1/../..", "sha256": "ab" * 32, "member": "a.gguf"}, "version"),
        ({"kind": "package", "name": "x", "version": "1", "sha256": "ab" * 32, "member": "a{b}.gguf"}, "member"),
        ({"kind": "gguf", "path": "a{b}.gguf", "sha256": "ab" * 32}, "path"),
        ({"kind": "gguf", "path": "s3://bucket/a.gguf", "sha256": "ab" * 32}, "path"),
        ({"kind": "folder", "path": "x" * 300}, "path"),
    ],
)
def test_a_source_whose_name_would_lead_elsewhere_is_refused(source, key):
    assert f"model.source.{key}: " in outcome(BASE | {"model": {"source": source}})


@pytest.mark.parametrize(
    "place",
    [
        "https://x/y",
        "https://x/{a}.csv",
        "https://x/a b.csv",
        "resources/statements/x.csv",
        "x/../resources/statements/x",
        "a\nb",
    ],
)
def test_a_file_of_statements_that_no_rule_could_fetch_or_read_is_refused(place):
    config = BASE | {"statements": {"truth": {"files": {"mine": place}}}}
    assert outcome(config).startswith("config: statements.truth.files.mine: ")


def bomb(levels: int) -> str:
    lines = ["a0: &a0 {x: 1, y: 1}", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels))]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "the file is empty; a config has at least"),
        (b"# only a comment\n", "the file is empty"),
        (b"[1, 2]", "a config is a mapping of keys, found a list"),
        (b"study: a\nstudy: b\n", "line 2: key 'study' stands twice"),
        (b"model:\n  dtype: a\n  dtype: b\n", "line 3: key 'dtype' stands twice"),
        (b"model:\n\tdtype: a\n", "line 2: found character"),
        (b"a: !!python/object/apply:os.system [exit 1]\n", "line 1: could not determine a constructor"),
        (b"a: !!python/name:os.system\n", "a: found a builtin_function_or_method, which no key takes"),
        ("study: é".encode("utf-16"), "not UTF-8 at byte 0"),
        (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8 at byte 0"),
        (b"a: \x00", "unacceptable character"),
        (b"a: 2024-13-45", "no sound YAML (month must be in 1..12"),
        (b"a: 2024-12-24", "a: found a date, which no key takes; quote it if it is text"),
        pytest.param(b"a: " + b"9" * 5000, "no sound YAML (Exceeds the limit", id="digits"),
        pytest.param(b"a: 0x" + b"f" * 5000, "a: a whole number of 20000 bits", id="hex"),
        pytest.param(b"a: " + b"[" * 3000, "no sound YAML (it is nested too deeply)", id="deep"),
        pytest.param(b'{"a": ' + b"[" * 100_000, "no sound YAML (it is nested too deeply)", id="deep-json"),
        (b"a: " + b"[" * 40 + b"]" * 40, "nested more than 20 deep"),
        (b"a: &a [*a]", "nested more than 20 deep"),
        (bomb(12).encode(), "more than 100,000 values; are its aliases meant so?"),
        (b"1: x", "a key is a int, and keys are words; quote it if it is one"),
        (b"? [a, b]\n: x", "line 1: found unhashable key"),
        (b"a: *nothing", "line 1: found undefined alias"),
        (b'a: "\\ud800"', "half a surrogate pair"),
        (b'a: "\\0"', "a NUL character"),
        (b"a: !!binary aGVsbG8=", "a: found a bytes"),
        pytest.param(b"#" * 1_000_001, "1,000,001 bytes; a config has 1,000,000 at most", id="large"),
        (b"x" * 300 + b": 1", "a key of 300 characters"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path, content, line):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        raw.check_file(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert line in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfstudy: a\n", b'{"study":\t"a"}', b"base: &b {x: 1}\nmore: {<<: *b, x: 2}\n"]
)
def test_files_that_yaml_and_json_allow_are_read(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    raw.check_file(tmp_path / "config.yaml")


@tried(300)
@given(
    st.integers(0, 2**20),
    st.binary(max_size=6) | st.sampled_from([b"\t", b"*a", b"&a", b"!!x", b"<<:", b"? ", b"- ", b"\n", b"{", b"\xff"]),
    st.integers(0, 3),
)
def test_a_file_with_some_bytes_changed_is_read_or_refused(tmp_path_factory, place, junk, removed):
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    text = FILE[: place % len(FILE)] + junk + FILE[place % len(FILE) + removed :]
    path.write_bytes(text)
    if said := refusal(lambda: raw.check_file(path)):
        assert said.isprintable()
        return
    outcome(yaml.load(text.decode("utf-8-sig"), Loader=yaml.FullLoader))


FILE = yaml.safe_dump(
    {key: BASE[key] for key in ("study", "model", "compute", "corpus", "tokens", "captures")}, sort_keys=False
).encode()


def edited(*path_and_value: Any) -> dict[str, Any]:
    """Return the tiny study's config with one value set; its path goes before it."""
    config = copy.deepcopy(BASE)
    *path, key, value = path_and_value
    section = config
    for name in path:
        section = section[name]
    section[key] = value
    return config


def test_sequences_of_billions_of_tokens_are_planned_or_refused_without_counting_to_them():
    for tokens in ("contexts", "prompts"):
        outcome(edited("tokens", tokens, "length", 2**62))


def test_a_number_of_thousands_of_digits_is_shown_in_part():
    said = outcome(edited("dictionaries", "residual", "l1", "coefficients", ["9" * 4000]))
    assert "coefficients[0]: found '999" in said
    assert len(said) < 200


def test_a_name_of_thousands_of_characters_is_shown_in_part():
    said = outcome(edited("perturbations", "latents", "clusters", "fit", "9" * 5000))
    assert "clusters.fit: '999" in said
    assert len(said) < 300


def test_tens_of_thousands_of_members_of_a_list_are_read_in_a_moment():
    config = edited("dictionaries", "residual", "kmeans", "seeds", [*range(30_000), 7])
    started = time.process_time()
    assert "7 is there twice; name it once" in outcome(config)
    assert time.process_time() - started < 3  # each compared with all before it would be half a billion


def test_every_shipped_config_is_read():
    for path in (Path(tiny.ROOT) / "config").rglob("*.yaml"):
        raw.check_file(path)
        outcome(yaml.load(path.read_text(), Loader=yaml.FullLoader))


def test_results_that_are_a_link_to_another_disk_stay_where_they_are(tmp_path, monkeypatch):
    """People put results on a large disk with a link: the paths of the DAG stay relative, whatever the link."""
    monkeypatch.chdir(tmp_path)
    os.symlink(tmp_path / "elsewhere", tmp_path / "results")
    assert outcome(BASE) == ""
