"""What an experiment takes from its files: prompts beside their activations, and a pool of real ones to draw from."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actspace import models
from actspace.activations import moments, store
from actspace.errors import StudyError
from actspace.perturbations import setting
from actspace.provenance import MadeBy
from actspace.tokens import SCHEMA
from perturbation_models import D_MODEL, VOCABULARY, tiny_model

SITE, LENGTH, SEQUENCES = "blocks.1.hook_resid_pre", 6, 12
MADE_BY = MadeBy("test", "activations", {}, "", {})
CFG = {
    "model": {"source": {}, "trust_remote_code": False, "gauge": "raw"},
    "site": SITE,
    "read": "blocks.2.hook_resid_post",
    "position": "last",
    "n_prompts": 5,
    "rows_per_launch": 64,
}


def stored(path, x):
    """Write activations (sequence, position, d_model) of one hook."""
    n, length, _ = x.shape
    rows = np.arange(n * length)
    keys = {
        "sequence_id": rows // length,
        "position": (rows % length).astype(np.int32),
        "token_id": np.zeros(len(rows), np.int32),
        "document_id": (rows // length).astype(str),
    }
    store.write(path, x.reshape(-1, x.shape[2]), keys, "float32", MADE_BY)
    return [str(path)]


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Files of an experiment on a tiny model; the last position of training sequence 3 is a hundred times as long as others."""
    model, rng = tiny_model("gpt2"), np.random.default_rng(0)
    monkeypatch.setattr(models, "locate", lambda *_: tmp_path)
    monkeypatch.setattr(models, "load", lambda *_: model)
    token_ids = rng.integers(VOCABULARY, size=(SEQUENCES, LENGTH))
    columns = [
        np.arange(SEQUENCES),
        np.arange(SEQUENCES).astype(str),
        np.arange(SEQUENCES, dtype=np.int32) % 2,
        token_ids.tolist(),
    ]
    table = pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA
    )
    pq.write_table(table, tmp_path / "tokens.parquet")
    train, test = torch.randn(2, SEQUENCES, LENGTH, D_MODEL, generator=torch.Generator().manual_seed(0))
    train[3, -1] *= 100
    pool = stored(tmp_path / "train-000.parquet", train)
    found = moments.of_files(pool, {"first_position": 1, "norm_outliers": 10}, 0)
    moments.save(tmp_path / "moments.safetensors", found)
    return SimpleNamespace(
        get=lambda name: None,
        tokens=[str(tmp_path / "tokens.parquet")],
        bases=stored(tmp_path / "test-000.parquet", test),
        pool=pool,
        moments=str(tmp_path / "moments.safetensors"),
        token_ids=token_ids,
        train=train.double().numpy(),
        test=test.double().numpy(),
    )


def test_prompts_come_with_their_own_activations_at_the_last_position(inputs):
    found = setting.load(inputs, CFG, "cpu").activations
    chosen = [0, 2, 4, 6, 8]  # the first windows of all documents come first
    np.testing.assert_array_equal(found.token_ids, inputs.token_ids[chosen])
    np.testing.assert_array_equal(found.real, inputs.test[chosen, -1])
    assert found.documents.tolist() == [str(row) for row in chosen]


def test_an_earlier_position_ends_the_prompts_there(inputs):
    found = setting.load(inputs, {**CFG, "position": 2}, "cpu").activations
    np.testing.assert_array_equal(found.token_ids, inputs.token_ids[[0, 2, 4, 6, 8], :3])
    np.testing.assert_array_equal(found.real, inputs.test[[0, 2, 4, 6, 8], 2])
    np.testing.assert_array_equal(found.pool.activations, inputs.train[:, 2])


def test_the_pool_leaves_out_what_the_capture_leaves_out(inputs):
    found = setting.load(inputs, CFG, "cpu").activations
    np.testing.assert_array_equal(found.pool.activations, np.delete(inputs.train[:, -1], 3, axis=0))
    assert found.mean_norm < 10


def test_fewer_prompts_than_asked_for_are_refused(inputs):
    known = setting.load(inputs, {**CFG, "n_prompts": 13}, "cpu").activations
    assert [numbers.tolist() for numbers in known.batches(5, 2)] == [[0, 1], [2, 3], [4]]
    with pytest.raises(StudyError, match="prompts: 13 asked for and 12 at hand; lower it or use more text"):
        next(known.batches(13, 2))
