"""Training that streams from the cache, and training that was killed: the same weights as without."""

import itertools
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from actspace.activations import store
from actspace.dictionaries.sae import rows, train
from actspace.dictionaries.sae.checkpoint import Checkpoint
from actspace.errors import StudyError
from actspace.provenance import MadeBy

SETTINGS = {"n_latents": 40, "vectors": 4000, "batch_size": 64, "learning_rate": 3e-3}
KINDS = {
    "topk": {"k": 3},
    "batch_topk": {"k": 3},
    "matryoshka": {"k": 3},
    "jumprelu": {"l0": 3},
    "l1": {"l1_coefficient": 1.0},
}


def settings(kind):
    return {"architecture": kind, **SETTINGS, **KINDS[kind]}


def gaussian(n=700, d_model=12):
    return torch.randn(n, d_model, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.2, 2, d_model) + 1


def stored(folder, x):
    """Write rows as files of 300, as a capture does."""
    paths = []
    for i, part in enumerate(x.split(300)):
        number = np.arange(len(part))
        keys = dict.fromkeys(("sequence_id", "position", "token_id"), number) | {"document_id": number.astype(str)}
        paths.append(folder / f"train-{i:03d}.parquet")
        store.write(paths[-1], part, keys, "float32", MadeBy("small", "activations", {}, "c0de", {}))
    return store.Activations(paths)


class Killed(Exception):  # noqa: N818 (no error)
    pass


def train_until(step, data, settings, checkpoint):
    """Train, and be killed in a step, before it is saved."""
    done = [0]

    def progress(vectors):
        done[0] += vectors
        if done[0] >= step * 64:
            raise Killed

    with pytest.raises(Killed):
        train.train(data, settings, 0, "cpu", progress, checkpoint)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_training_ends_in_the_weights_of_undisturbed_training(kind, tmp_path):
    x = gaussian()
    expected, whole_curve = train.train(x, settings(kind), 0)
    checkpoint = Checkpoint(tmp_path / "sae.checkpoint", "a run", seconds_between=0)
    for step in sorted(np.random.default_rng(len(kind)).choice(np.arange(2, 60), 2, replace=False)):
        train_until(step, x, settings(kind), checkpoint)
    assert checkpoint.load()[1]["done"] == step - 1
    found, curve = train.train(x, settings(kind), 0, checkpoint=checkpoint)
    for name, tensor in expected.named_buffers():
        assert torch.equal(getattr(found, name), tensor), name
    assert curve.equals(whole_curve)
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_a_kill_after_the_last_step_leaves_the_threshold_as_it_would_have_been(tmp_path, monkeypatch):
    x = gaussian()
    expected, _ = train.train(x, settings("batch_topk"), 0)
    checkpoint = Checkpoint(tmp_path / "sae.checkpoint", "a run", seconds_between=0)
    with monkeypatch.context() as patch:
        patch.setattr(train.Training, "calibrate", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            train.train(x, settings("batch_topk"), 0, checkpoint=checkpoint)
    assert checkpoint.load()[1]["done"] == 63
    found, _ = train.train(x, settings("batch_topk"), 0, checkpoint=checkpoint)
    assert torch.equal(found.threshold, expected.threshold)


def test_the_checkpoint_of_another_run_is_not_used(tmp_path):
    made = Checkpoint(tmp_path / "sae.checkpoint", "a run")
    made.save({"x": torch.ones(2)}, {"done": 3})
    assert made.load()[1] == {"done": 3}
    assert Checkpoint(made.path, "other settings").load() is None
    made.path.write_bytes(made.path.read_bytes()[:-3])
    assert made.load() is None
    assert Checkpoint(tmp_path / "absent", "a run").load() is None


class Listed(rows.InMemory):
    """Rows in memory, in the orders in which the cache gives them."""

    def __init__(self, x, orders):
        super().__init__(x)
        self.orders = orders

    def batches(self, size, seed):
        return iter([torch.cat([*self.orders.batches(97, seed)])])


def test_streamed_rows_train_like_rows_in_memory(tmp_path, monkeypatch):
    x = gaussian()
    activations = stored(tmp_path, x)
    streamed, _ = train.train(activations, settings("topk"), 0)
    in_memory = Listed(x, activations)
    monkeypatch.setattr(in_memory, "sample", rows.Streamed(activations).sample)
    monkeypatch.setattr(train, "InMemory", lambda _: in_memory)
    expected, _ = train.train(x, settings("topk"), 0)
    torch.testing.assert_close(streamed.W_dec, expected.W_dec)
    torch.testing.assert_close(streamed.b_enc, expected.b_enc)


def test_streamed_training_goes_on_after_a_kill(tmp_path):
    activations = stored(tmp_path, gaussian())
    expected, _ = train.train(activations, settings("topk"), 0)
    checkpoint = Checkpoint(tmp_path / "sae.checkpoint", "a run", seconds_between=0)
    train_until(37, activations, settings("topk"), checkpoint)
    found, _ = train.train(activations, settings("topk"), 0, checkpoint=checkpoint)
    assert torch.equal(found.W_dec, expected.W_dec)


def test_every_row_is_seen_once_an_epoch(tmp_path):
    x = torch.arange(700.0)[:, None].expand(-1, 4) + 1
    stream = rows.endless(rows.Streamed(stored(tmp_path, x)), 700, 64, seed=0)
    seen = torch.cat([*itertools.islice(stream, 22)])[:1400, 0]
    assert torch.equal(seen[:700].sort().values, x[:, 0])
    assert torch.equal(seen[700:].sort().values, x[:, 0])
    assert not torch.equal(seen[:700], seen[700:])


def test_a_constant_dimension_and_too_few_rows():
    x = gaussian()
    x[:, 3] = 7.0
    found, _ = train.train(x, settings("topk"), 0)
    torch.testing.assert_close(found(x)[:, 3].mean(), torch.tensor(7.0), rtol=0.02, atol=0)
    assert all(tensor.isfinite().all() for tensor in found.buffers())
    with pytest.raises(StudyError, match="1 rows to train on; read more activations"):
        train.train(x[:1], settings("topk"), 0)
    x[650, 2] = float("inf")
    with pytest.raises(StudyError, match="SAE data: row 650 holds a NaN or an infinity"):
        train.train(x, settings("topk"), 0)
