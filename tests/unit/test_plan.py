from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from actspace import disk, hooks, plan, provenance, speed, stages, tables
from actspace.activations import capture, store
from actspace.config.inputs import EveryNth, stored_positions
from actspace.config.study import Study
from actspace.errors import StudyError
from actspace.perturbations.local import PROBED
from actspace.reading import read_study

PRE, POST = "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"
SOURCE = {"kind": "folder", "path": "model"}
CONFIG: dict[str, Any] = {
    "study": "small",
    "model": {"source": SOURCE},
    "corpus": {"sources": [{"kind": "file", "path": "text.txt"}]},
    "tokens": {"contexts": {"length": 16, "train": 101, "test": 40, "shards": 2}},
    "statements": {
        "truth": {"generated": ["cities", "comparisons"], "per_set": 40},
        "own": {"files": {"own": "own.csv"}},
    },
    "captures": {
        "contexts": {"tokens": "contexts", "hooks": [PRE, POST], "select": {"first_position": 1}},
        "ends": {"tokens": "contexts", "hooks": [PRE], "positions": "last", "storage": "float32"},
        "facts": {"tokens": "truth", "hooks": ["blocks.0.hook_resid_pre", POST], "positions": "last"},
        "spoken": {"tokens": "truth", "hooks": [POST]},
        "own": {"tokens": "own", "hooks": [POST], "positions": "last"},
    },
    "dictionaries": {"both": {"capture": "contexts", "hooks": [PRE], "pca": {"ranks": [2]}}},
    "perturbations": {
        "plateaus": {
            "capture": "ends",
            "sites": [PRE],
            "read": POST,
            "bases": ["real", "covariance_random"],
            "directions": ["isotropic"],
            "paths": ["sphere", "straight"],
            "prompts": 5,
            "draws": 3,
        }
    },
    "regions": {
        "between": {
            "capture": "ends",
            "sites": [PRE],
            "read": POST,
            "prompts": 5,
            "clusters": 2,
            "pairs": 3,
            "steps": 11,
        }
    },
}
SHAPE = plan.Shape(d_model=8, block_weights=(100, 200), output_weights=1000)
CONTEXTS = [f"activations/contexts/{hook}/{part}.parquet" for hook in (PRE, POST) for part in ("train-000", "test-001")]


@pytest.fixture
def study() -> Study:
    return read_study(CONFIG)


def work_of(name: str, study: Study, folder: Path) -> plan.Work:
    return next(work for work in plan.remaining(study, SHAPE, folder) if work.name == name)


def put(folder: Path, path: str, cfg: Any, inputs: dict[str, str] | None = None, content: bytes = b"x") -> str:
    """Write a file with a receipt and return its sha256."""
    made_by = provenance.MadeBy("small", "rule", stages.canonical(cfg), "code", inputs or {})
    provenance.write(folder / path, lambda temporary: temporary.write_bytes(content), made_by)
    return provenance.sha256_of(folder / path)


def put_capture(study: Study, folder: Path, name: str = "contexts") -> None:
    settings = study.captures[name]
    for part in stages.parts(study, settings.tokens):
        sha = put(
            folder,
            f"tokens/{settings.tokens}/{part}.parquet",
            stages.tokens(study, settings.tokens),
            content=part.encode(),
        )
        for hook in settings.hooks:
            put(
                folder,
                f"activations/{name}/{hook}/{part}.parquet",
                stages.activations(study, name),
                {"tokens.parquet": sha},
            )


# --- rows and bytes --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positions", "rows"),
    [("all", 10), ("last", 1), ([0, 3, -1], 3), ([9, -1, 12, -11], 1), (EveryNth(every=4), 3), (EveryNth(every=5), 2)],
)
def test_stored_positions_of_ten_tokens(positions, rows):
    assert len(stored_positions(positions, 10)) == rows


@pytest.mark.parametrize("positions", ["all", "last", [0, 2, -2, 30], {"every": 3}])
@pytest.mark.parametrize("first", [0, 1, 4])
def test_stored_positions_are_those_that_a_capture_stores(positions, first):
    lengths = np.arange(1, 12)
    stored = capture._Rows.of(lengths, positions)
    counts = np.bincount(stored.sequence[stored.position >= first], minlength=len(lengths))
    spec = EveryNth(**positions) if isinstance(positions, dict) else positions
    found = [sum(place >= first for place in stored_positions(spec, int(length))) for length in lengths]
    assert found == counts.tolist()


def test_shards_have_the_sequences_that_tokenizing_gives_them(study):
    assert disk.lengths(study, "contexts") == {
        "train-000": {16: 50},
        "train-001": {16: 51},
        "test-000": {16: 20},
        "test-001": {16: 20},
    }


def test_bytes_are_rows_times_vector_and_keys_for_every_hook(study):
    files = disk.files(study, d_model=8)
    size = 50 * 16 * (8 * 2 + disk.KEY_BYTES) + disk.FILE_BYTES
    assert files[CONTEXTS[0]] == files[CONTEXTS[2]] == disk.File(rows=800, size=size)
    assert files[f"activations/ends/{PRE}/train-001.parquet"].size == 51 * (32 + disk.KEY_BYTES) + disk.FILE_BYTES


def test_a_surrogate_has_the_rows_that_are_used_in_float32(study):
    files = disk.files(study, d_model=8)
    found = {path: file.rows for path, file in files.items() if path.startswith("surrogates")}
    assert found == {
        f"surrogates/gaussian/contexts/{PRE}/train.parquet": 101 * 15,
        f"surrogates/gaussian/contexts/{PRE}/test.parquet": 40 * 15,
    }
    assert files[f"surrogates/gaussian/contexts/{PRE}/test.parquet"].size == 600 * 60 + disk.FILE_BYTES


def test_rows_of_statements_are_known_where_their_number_is_and_one_token_of_each_is_stored(study):
    files = disk.files(study, d_model=8)
    rows = {name: files[f"activations/{name}/{POST}/all-000.parquet"].rows for name in ("facts", "spoken", "own")}
    assert rows == {"facts": 80, "spoken": None, "own": None}


def test_rows_of_phrases_are_as_many_as_there_are_phrases():
    concepts = {
        "sofas": {"kind": "unions", "template": "{a} {b}", "parts": {"a": ["x", "y"], "b": "tableau"}},
        "grades": {
            "kind": "intensity",
            "grades": ["slightly", "very", "most"],
            "adjectives": ["old", "cold", "big", "sad"],
            "folds": 2,
        },
    }
    captures = {name: {"tokens": name, "hooks": [POST], "positions": "last"} for name in concepts}
    study = read_study(CONFIG | {"concepts": concepts, "captures": CONFIG["captures"] | captures})
    files = disk.files(study, d_model=8)
    rows = {name: files[f"activations/{name}/{POST}/all-000.parquet"].rows for name in concepts}
    assert rows == {"sofas": 20, "grades": 16}


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_the_expected_size_of_a_file_is_that_of_a_real_one(tmp_path, storage):
    n, d_model = 20_000, 64
    keys = {
        "sequence_id": np.arange(n),
        "position": np.zeros(n, np.int32),
        "document_id": np.arange(n).astype(str),
        "token_id": np.ones(n, np.int32),
    }
    made_by = provenance.MadeBy("small", "activations", {}, "code", {})
    store.write(tmp_path / "x.parquet", torch.randn(n, d_model), keys, storage, made_by)
    real = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert disk.expect(n, d_model, storage).size == pytest.approx(real, rel=0.05)


# --- what is still to run --------------------------------------------------------------------------------------------------------------------


def test_all_of_a_new_capture_is_to_run(study, tmp_path):
    work = work_of("captures.contexts", study, tmp_path)
    assert (work.jobs, work.sequences, work.tokens, work.rows) == (4, 141, 141 * 16, 141 * 16)
    assert work.size == sum(f.size for path, f in disk.files(study, 8).items() if path.startswith("activations/cont"))
    assert work.flops == 141 * 16 * (2 * (100 + 200) + 2 * 2 * 16 * 8)
    assert work.probe == (2, 16)


def test_a_pass_stops_at_the_deepest_hook(study, tmp_path):
    assert work_of("captures.ends", study, tmp_path).flops == 141 * 16 * (2 * 100 + 2 * 16 * 8)


def test_finished_parts_are_left_out(study, tmp_path):
    put_capture(study, tmp_path)
    assert work_of("captures.contexts", study, tmp_path).jobs == 0
    (tmp_path / CONTEXTS[1]).unlink()
    work = work_of("captures.contexts", study, tmp_path)
    assert (work.jobs, work.sequences) == (1, 20)


def test_files_made_with_other_settings_or_tokens_are_to_run(study, tmp_path):
    put_capture(study, tmp_path)
    config = json.loads(json.dumps(CONFIG))
    config["captures"]["contexts"]["storage"] = "float32"
    assert work_of("captures.contexts", read_study(config), tmp_path).jobs == 4
    put(tmp_path, "tokens/contexts/train-001.parquet", stages.tokens(study, "contexts"), content=b"other tokens")
    assert work_of("captures.contexts", study, tmp_path).jobs == 1


def test_a_surrogate_of_what_is_captured_again_is_made_again(study, tmp_path):
    put_capture(study, tmp_path)
    for split in stages.SPLITS:
        cfg = stages.surrogate(study, "gaussian", "contexts", PRE, split)
        put(tmp_path, f"surrogates/gaussian/contexts/{PRE}/{split}.parquet", cfg)
    assert work_of("surrogates.gaussian.contexts", study, tmp_path).jobs == 0
    (tmp_path / CONTEXTS[0]).unlink()
    assert work_of("surrogates.gaussian.contexts", study, tmp_path).jobs == 2


def test_tokens_of_statements_are_known_once_they_are_tokenized(study, tmp_path):
    work = work_of("captures.facts", study, tmp_path)
    assert (work.sequences, work.rows, work.tokens, work.probe) == (80, 80, None, None)
    made_by = provenance.MadeBy("small", "statements", stages.canonical(stages.statements(study, "truth")), "code", {})
    tables.write(
        tmp_path / "tokens/truth/all-000.parquet", pd.DataFrame({"token_ids": [[1, 2], [3], [4, 5, 6]]}), made_by
    )
    assert work_of("captures.facts", study, tmp_path).tokens == 6
    assert work_of("captures.spoken", study, tmp_path).rows == 6


def test_an_experiment_counts_the_positions_of_its_curves_and_of_their_crossings(study, tmp_path):
    work = work_of("perturbations.plateaus", study, tmp_path)
    vectors = 5 * 3 * 2 * 1 * 2 * (31 + len(PROBED) + plan.HALVINGS)
    assert work.tokens == vectors
    assert work.flops == vectors * (2 * 200 + 4 * 16 * 8 + 2 * 1000)


def test_regions_count_the_points_of_their_paths_and_the_undisturbed_prompts(study, tmp_path):
    work = work_of("regions.between", study, tmp_path)
    assert (work.jobs, work.tokens) == (1, 5 * (1 + 3 * 11))
    assert work.flops == work.tokens * (2 * 200 + 4 * 16 * 8 + 2 * 1000)


# --- room ------------------------------------------------------------------------------------------------------------------------------------


def full(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


def needed(study: Study) -> int:
    return sum(file.size or 0 for file in disk.files(study, 8).values())


def test_a_study_that_does_not_fit_is_refused_with_what_it_needs(study, tmp_path, monkeypatch):
    full(monkeypatch, 0.5e9)
    with pytest.raises(StudyError) as caught:
        disk.check(study, d_model=2_000_000, folder=tmp_path / "results" / "small")
    # 141 x 16 rows of 2 hooks in float16, 141 in float32, 80 of 2 hooks in float16; a surrogate of 141 x 15 rows in float32
    gigabytes = 1.03 * (2256 * 2 * 4e6 + 141 * 8e6 + 80 * 2 * 4e6 + 2115 * 8e6) / 1e9
    assert str(caught.value) == (
        f"study 'small': the activations still to be written need {gigabytes:,.1f} GB, but the disk of "
        f"{tmp_path}/results/small has 0.5 GB free; free some space, or ask for fewer sequences, hooks or `positions`, or for `storage: float16`"
    )


def test_room_is_needed_with_a_margin(study, tmp_path, monkeypatch):
    full(monkeypatch, 1.02 * needed(study))
    with pytest.raises(StudyError, match="GB free"):
        disk.check(study, 8, tmp_path)
    full(monkeypatch, 1.04 * needed(study))
    disk.check(study, 8, tmp_path)


def test_finished_files_need_no_room(study, tmp_path, monkeypatch):
    put_capture(study, tmp_path)
    left = sum(file.size or 0 for path, file in disk.files(study, 8).items() if not (tmp_path / path).is_file())
    assert left < needed(study) / 1.5
    full(monkeypatch, 1.04 * left)
    disk.check(study, 8, tmp_path)


def test_only_what_is_about_to_be_made_needs_room_less_what_lies_in_its_place(study, tmp_path, monkeypatch):
    path, size = tmp_path / CONTEXTS[0], disk.files(study, 8)[CONTEXTS[0]].size
    full(monkeypatch, size)
    disk.check(study, 8, tmp_path, making=[tmp_path / "report.html"])
    with pytest.raises(StudyError, match="small"):
        disk.check(study, 8, tmp_path, making=[path])
    put(tmp_path, CONTEXTS[0], {}, content=bytes(size // 2))
    disk.check(study, 8, tmp_path, making=[path])


def test_the_check_before_the_first_job_needs_a_description_of_this_model(study, tmp_path, monkeypatch):
    full(monkeypatch, 0)
    making = [tmp_path / CONTEXTS[0]]
    disk.check_known(study, tmp_path, making)
    description = {"source": {"kind": "folder", "path": "another"}, "d_model": 8}
    (tmp_path / "model.json").write_text(json.dumps(description))
    disk.check_known(study, tmp_path, making)
    (tmp_path / "model.json").write_text(json.dumps(description | {"source": SOURCE}))
    assert hooks.known(tmp_path / "model.json", SOURCE)
    with pytest.raises(StudyError, match=r"has 0\.0 GB free"):
        disk.check_known(study, tmp_path, making)


# --- time and table --------------------------------------------------------------------------------------------------------------------------


def test_each_kind_of_pass_is_measured_once_and_the_time_is_shared_out(study, tmp_path):
    asked = []

    def measure(depth: int, length: int, seconds: float) -> float:
        asked.append((depth, length, seconds))
        return 1000.0 * depth

    work = plan.timed(plan.remaining(study, SHAPE, tmp_path), measure, seconds=4, start=10)
    assert asked == [(1, 16, 2), (2, 16, 2)]
    seconds = {item.name: item.seconds for item in work}
    assert seconds["captures.contexts"] == pytest.approx(4 * 10 + 2256 / 2000)
    vector, token = 2 * 200 + 4 * 16 * 8 + 2 * 1000, 2 * 300 + 2 * 2 * 16 * 8
    vectors = next(item.tokens for item in work if item.name == "perturbations.plateaus")
    assert seconds["perturbations.plateaus"] == pytest.approx(10 + vectors * vector / token / 2000)
    assert seconds["captures.facts"] is None


def test_the_fastest_of_the_largest_batches_that_the_time_allows_counts():
    now, ran = [0.0], []

    def forward(n: int) -> None:
        ran.append(n)
        now[0] += 0.1 if len(ran) == 1 else 0.01 * n  # the first is slow

    assert speed.throughput(forward, 6, seconds=10, clock=lambda: now[0]) == pytest.approx(100)
    assert ran == [1, 1, 2, 4, 6, 6, 6]
    ran.clear()
    speed.throughput(forward, 6, seconds=0.15, clock=lambda: now[0])
    assert ran == [1, 1, 2]


def test_a_batch_without_memory_does_not_count():
    now = [0.0]

    def forward(n: int) -> None:
        now[0] += 0.5
        if n > 2:
            raise torch.OutOfMemoryError("too much")

    assert speed.throughput(forward, 8, seconds=60, clock=lambda: now[0]) == 4


def test_the_table_is_aligned_and_says_what_is_done_and_unknown(study, tmp_path):
    put_capture(study, tmp_path)
    work = plan.timed(plan.remaining(study, SHAPE, tmp_path), lambda *_: 500.0, 1, 2)
    header, *lines = plan.table(work).splitlines()
    assert header.split() == [*plan.COLUMNS]
    cells = {line.split()[0]: line.split()[1:] for line in lines}
    assert cells["captures.contexts"] == ["done"]
    assert cells["captures.facts"][:4] == ["1", "80", "?", "80"]
    assert cells["captures.ends"][:4] == ["4", "141", "2,256", "141"]
    assert len({len(line) for line in lines if "done" not in line}) == 1
    counted = Counter(item.jobs for item in work)
    assert cells["total"][0] == str(sum(jobs * n for jobs, n in counted.items()))


def test_the_summary_says_whether_it_fits(study, tmp_path, monkeypatch):
    work = plan.remaining(study, SHAPE, tmp_path)
    full(monkeypatch, 5e12)
    assert "margin of 3%, 5.0 TB free" in plan.summary(study, work, tmp_path, "cpu", 1)
    full(monkeypatch, 10)
    assert plan.summary(study, work, tmp_path, "cpu", 1).startswith("study 'small': the activations still to be")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (2e5, "2.3 d")]
)
def test_durations(seconds, text):
    assert plan.duration(seconds) == text
