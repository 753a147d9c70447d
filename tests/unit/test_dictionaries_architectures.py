"""BatchTopK, Matryoshka and JumpReLU: losses and gradients against the dense way, thresholds, and what they learn."""

import pytest
import torch
from torch.nn import functional

from actspace.dictionaries import base
from actspace.dictionaries.base import BatchTopK, JumpReLU, Matryoshka
from actspace.dictionaries.sae import architectures, train
from actspace.errors import StudyError

D_MODEL, LATENTS, ROWS = 16, 40, 30
KINDS = {
    "batch_topk": (architectures.TrainingBatchTopK, {"k": 3, "k_aux": 4, "aux_coefficient": 0.5}),
    "matryoshka": (
        architectures.TrainingMatryoshka,
        {"k": 3, "k_aux": 4, "aux_coefficient": 0.5, "widths": (5, 15, 40)},
    ),
    "jumprelu": (architectures.TrainingJumpReLU, {"l0": 4.0, "coefficient": 0.7, "bandwidth": 0.3}),
}


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X = gaussian(ROWS, D_MODEL, seed=5)


def module(kind):
    make, settings = KINDS[kind]
    model = make(gaussian(D_MODEL, seed=2), LATENTS, 20.0, torch.Generator().manual_seed(1), **settings).double()
    model.encoder.data += 0.1 * gaussian(LATENTS, D_MODEL, seed=3)
    model.b_enc.data += 0.1 * gaussian(LATENTS, seed=4)
    model.start(X)
    return model


def sparse_data(n_rows=20_000):
    """Rows of about two of 32 directions in 16 dimensions, and the directions."""
    g = torch.Generator().manual_seed(3)
    directions = functional.normalize(torch.randn(32, D_MODEL, generator=g), dim=1)
    active = torch.rand(n_rows, 32, generator=g) < 2 / 32
    return (active * (1 + torch.rand(n_rows, 32, generator=g))) @ directions + 1, directions


def settings(architecture, **changes):
    own = {"batch_topk": {"k": 3}, "matryoshka": {"k": 3, "prefixes": (0.5, 1)}, "jumprelu": {"l0": 3.0}}
    common = {"n_latents": 48, "vectors": 150_000, "batch_size": 256, "learning_rate": 1e-2}
    return {"architecture": architecture, **common, **own[architecture], **changes}


def dense_loss(model, kind):
    """The loss from its definition, with dense (row, latent) latents and no dead ones."""
    p = ((X - model.b_dec) @ model.encoder.T + model.b_enc).relu()
    if kind == "jumprelu":
        inside = ((p - model.threshold).abs() < 0.15).double()
        fires = (p > model.threshold).double()
        # What a gradient flows through, minus its own value: the straight-through estimator.
        through = -inside / 0.3 * (model.threshold - model.threshold.detach())
        latents = p * fires + model.threshold.detach() * through
        r = X - latents @ model.decoder - model.b_dec
        return r.square().sum(1).mean() / 20 + 0.7 * ((fires + through).sum(1).mean() / 4 - 1).square()
    least = p.flatten().topk(3 * ROWS).values[-1]
    latents = p * (p >= least)
    widths = (5, 15, 40) if kind == "matryoshka" else (40,)
    errors = [X - latents[:, :n] @ model.decoder[:n] - model.b_dec for n in widths]
    return sum(r.square().sum(1).mean() for r in errors) / len(widths) / 20


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_dense_loss(kind):
    sparse, dense = module(kind), module(kind)
    step = sparse.step(X, torch.zeros(LATENTS, dtype=torch.bool), 1.0)
    expected = dense_loss(dense, kind)
    step.loss.backward()
    expected.backward()
    assert float(step.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for (name, found), want in zip(sparse.named_parameters(), dense.parameters(), strict=True):
        assert want.grad.any(), name
        torch.testing.assert_close(found.grad, want.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", ["batch_topk", "matryoshka"])
def test_batch_methods_keep_k_per_row_on_average(kind):
    assert float(module(kind).step(X, torch.zeros(LATENTS, dtype=torch.bool), 1.0).l0) == 3


def test_the_threshold_is_the_mean_over_batches_of_the_smallest_active_value():
    model = module("batch_topk")
    p = [(x - model.b_dec) @ model.encoder.T + model.b_enc for x in (X, 2 * X)]
    smallest = [each.detach().flatten().topk(3 * ROWS).values[-1] for each in p]
    model.calibrate([X, 2 * X])
    assert float(model.threshold) == pytest.approx(float(sum(smallest)) / 2, rel=1e-12)


def test_the_threshold_is_zero_where_fewer_than_k_are_positive():
    model = module("batch_topk")
    model.b_enc.data -= 100
    model.calibrate([X])
    assert float(model.threshold) == 0


@pytest.mark.parametrize("kind", ["batch_topk", "matryoshka"])
@pytest.mark.parametrize("batch_size", [32, 256])
def test_without_the_batch_k_latents_fire_per_training_row(kind, batch_size):
    # In so few steps, the smallest active value has not settled.
    x, _ = sparse_data()
    found, _ = train.train(x, settings(kind, vectors=60 * batch_size, batch_size=batch_size), seed=0)
    assert float((found.encode(x).values > 0).sum(1).float().mean()) == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_fold_with_the_scale(kind):
    model = module(kind)
    if kind != "jumprelu":
        model.threshold.fill_(1.3)
    folded, codes = model.folded(0.25), model.folded(1.0).encode(0.25 * X)
    assert torch.equal(folded.encode(X).indices, codes.indices)
    torch.testing.assert_close(folded.encode(X).values, codes.values / 0.25)
    assert 0 < codes.values.count_nonzero() < codes.values.numel()


def test_jumprelu_keeps_whole_values_above_the_threshold_of_their_latent():
    eye = torch.eye(3)
    tensors = {"W_enc": eye, "b_enc": torch.zeros(3), "W_dec": eye, "b_dec": torch.zeros(3)}
    found = JumpReLU(tensors | {"threshold": torch.tensor([1.0, 0.0, 2.0])})
    x = torch.tensor([[1.0, 0.5, 2.5], [1.5, -1.0, 2.0]])
    assert found(x).tolist() == [[0, 0.5, 2.5], [1.5, 0, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_each_architecture_reconstructs_at_its_sparsity(kind):
    x, directions = sparse_data()
    found, curve = train.train(x, settings(kind), seed=0)
    random = functional.normalize(gaussian(48, D_MODEL).float(), dim=1)
    assert (directions @ found.W_dec.T).max(1).values.mean() > (directions @ random.T).max(1).values.mean() + 0.2
    # Without the batch, or at the end of the penalty's work, about as many latents fire as were asked for.
    assert float((found.encode(x).values > 0).sum(1).float().mean()) == pytest.approx(3, rel=0.15)
    assert curve.fvu_pooled.iloc[-1] < 0.2


def test_matryoshka_prefixes_reconstruct_by_themselves():
    x, _ = sparse_data()
    error = {}
    for kind in ("batch_topk", "matryoshka"):
        found, _ = train.train(x, settings(kind, n_latents=24), seed=0)
        indices, values = found.encode(x)
        half = found.decode(base.Codes(indices, torch.where(indices < 12, values, 0.0)))
        error[kind] = float((x - half).square().sum() / (x - x.mean(0)).square().sum())
    assert error["matryoshka"] < 0.9 * error["batch_topk"]


@pytest.mark.parametrize("kind", [BatchTopK, Matryoshka, JumpReLU])
def test_saved_thresholds_and_settings_come_back(kind, tmp_path):
    own = {BatchTopK: {"k": 3}, Matryoshka: {"k": 3, "widths": [5, 40]}, JumpReLU: {}}[kind]
    made = kind(module("jumprelu").tensors(1.0), **own)
    base.save(made, tmp_path / "sae.safetensors", {})
    found = base.load(tmp_path / "sae.safetensors")
    assert type(found) is kind
    assert found.settings == own
    torch.testing.assert_close(found.threshold, made.threshold.float(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("batch_topk", {"k": 49}, "k is 49, but must lie between 1 and the number of latents, 48"),
        ("jumprelu", {"l0": 0}, "l0 is 0, but must lie between 0 and"),
        ("matryoshka", {"prefixes": (0.5,)}, "prefixes are .*, the largest 1"),
    ],
)
def test_what_an_architecture_cannot_do_is_refused(kind, changes, message):
    with pytest.raises(StudyError, match=message):
        train.train(X, settings(kind, **changes), seed=0)
