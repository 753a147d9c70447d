"""SAE training: gradients against the dense way, what it learns, and what it refuses."""

import itertools

import pytest
import torch
from torch.nn import functional

from actspace.dictionaries.base import L1, TopK
from actspace.dictionaries.sae import architectures, rows, train
from actspace.errors import StudyError

D_MODEL, DIRECTIONS = 24, 48
VARIANCE = 20.0


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sparse_data(n_rows=20_000, offset=1.0):
    """Rows that are sums of about two of 48 directions in 24 dimensions; also the directions."""
    g = torch.Generator().manual_seed(0)
    directions = functional.normalize(torch.randn(DIRECTIONS, D_MODEL, generator=g), dim=1)
    active = torch.rand(n_rows, DIRECTIONS, generator=g) < 2 / DIRECTIONS
    return (active * (1 + torch.rand(n_rows, DIRECTIONS, generator=g))) @ directions + offset, directions


def settings(architecture="topk", **changes):
    own = {"k": 3} if architecture == "topk" else {"l1_coefficient": 2.0}
    common = {"architecture": architecture, "n_latents": 64, "vectors": 4000, "batch_size": 256, "learning_rate": 3e-3}
    return common | own | changes


def module(k=5, k_aux=4, aux_coefficient=1 / 32, n_latents=30):
    generator = torch.Generator().manual_seed(1)
    model = architectures.TrainingTopK(
        gaussian(D_MODEL, seed=2), n_latents, VARIANCE, generator, k=k, k_aux=k_aux, aux_coefficient=aux_coefficient
    )
    model.encoder.data += 0.1 * gaussian(n_latents, D_MODEL, seed=3)
    model.b_enc.data += 0.1 * gaussian(n_latents, seed=4)
    return model


def dense_loss(model, x, dead):
    """The loss of TopK with AuxK, straight from its definition, with dense (row, latent) latents."""

    def top(p, k):
        return torch.zeros_like(p).scatter(1, p.topk(k).indices, p.topk(k).values)

    p = ((x - model.b_dec) @ model.encoder.T + model.b_enc).relu()
    residual = x - (top(p, model.k) @ model.decoder + model.b_dec)
    loss = residual.square().sum(1).mean() / VARIANCE
    if dead.any():
        revived = top(torch.where(dead, p, 0.0), min(model.k_aux, int(dead.sum()))) @ model.decoder
        target = residual.detach()
        spread = (target - target.mean(0)).square().sum()
        loss = loss + model.aux_coefficient * (target - revived).square().sum() / spread
    return loss


@pytest.mark.parametrize("n_dead", [0, 3, 12])
def test_sparse_gradients_equal_the_dense_ones(n_dead):
    x, dead = gaussian(40, D_MODEL, seed=5), torch.arange(30) < n_dead
    sparse, dense = module(aux_coefficient=0.5).double(), module(aux_coefficient=0.5).double()
    loss = sparse.step(x.double(), dead, 1.0).loss
    expected = dense_loss(dense, x.double(), dead)
    loss.backward()
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for (name, found), want in zip(sparse.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(found.grad, want.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_latents_that_no_row_chose_get_no_gradient():
    model, x = module(k=1), gaussian(3, D_MODEL, seed=5)
    step = model.step(x, torch.zeros(30, dtype=torch.bool), 1.0)
    step.loss.backward()
    assert 1 <= int(step.fired.sum()) <= 3
    assert not model.encoder.grad[~step.fired].any()
    assert not model.decoder.grad[~step.fired].any()
    assert model.encoder.grad[step.fired].any(dim=1).all()


def test_auxk_trains_dead_latents_and_leaves_b_dec_out():
    model, x = module(), gaussian(40, D_MODEL, seed=5)
    dead = torch.arange(30) < 2
    loss = model.aux_loss(x - model.b_dec, x - model.b_dec.detach(), dead)
    loss.backward()
    alive_again = ((x - model.b_dec) @ model.encoder[:2].T + model.b_enc[:2]).relu()
    target = x - model.b_dec
    spread = (target - target.mean(0)).square().sum()
    torch.testing.assert_close(loss, (target - alive_again @ model.decoder[:2]).square().sum() / spread)
    assert model.decoder.grad[:2].any(dim=1).all()
    assert not model.decoder.grad[2:].any()


def test_l1_loss_is_squared_error_plus_the_warmed_up_penalty():
    model = architectures.TrainingL1(gaussian(D_MODEL), 30, 20.0, torch.Generator().manual_seed(0), l1_coefficient=4.0)
    x = gaussian(10, D_MODEL, seed=5)
    f = ((x - model.b_dec) @ model.encoder.T + model.b_enc).relu()
    error = (x - f @ model.decoder - model.b_dec).square().sum(1).mean()
    step = model.step(x, torch.zeros(30, dtype=torch.bool), 0.25)
    torch.testing.assert_close(step.loss, error + f.sum(1).mean())
    assert float(step.l0) == pytest.approx(float((f > 0).sum(1).float().mean()))


def test_parallel_gradients_are_removed_and_rows_keep_unit_norm():
    model = module()
    model.decoder.grad = gaussian(30, D_MODEL, seed=9)
    model.drop_parallel_gradient()
    torch.testing.assert_close((model.decoder.grad * model.decoder).sum(1), torch.zeros(30), atol=1e-5, rtol=0)
    trained, _ = train.train(sparse_data(2000)[0], settings(), seed=0)
    torch.testing.assert_close(trained.W_dec.norm(dim=1), torch.ones(64))


def test_adam_sees_no_gradient_along_the_decoder_rows():
    model = module()
    before, optimizer = model.decoder.detach().clone(), torch.optim.Adam(model.parameters())
    loss = model.step(gaussian(40, D_MODEL, seed=5), torch.zeros(30, dtype=torch.bool), 1.0).loss
    train.update(model, optimizer, loss, learning_rate=1e-3)
    momentum = optimizer.state[model.decoder]["exp_avg"]
    assert momentum.any()
    torch.testing.assert_close((momentum * before).sum(1), torch.zeros(30), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.25, 3.7])
def test_folding_the_scale_changes_nothing(scale):
    model, x = module(), gaussian(20, D_MODEL, seed=6)
    scaled = model.step(scale * x, torch.zeros(30, dtype=torch.bool), 1.0).reconstruction / scale
    torch.testing.assert_close(model.folded(scale)(x), scaled)
    if scale == 0.25:  # a power of two rounds nothing
        assert torch.equal(model.folded(scale).encode(x).values, model.folded(1.0).encode(scale * x).values / scale)


def test_topk_recovers_most_true_directions():
    # 48 features, each active in 1 of 24 rows, in 24 dimensions; 20,000 rows, seen seven to eight times.
    x, directions = sparse_data()
    found, curve = train.train(x, settings(vectors=150_000, learning_rate=1e-2), seed=0)
    best = (directions @ found.W_dec.T).max(1).values
    assert isinstance(found, TopK)
    assert (best > 0.95).float().mean() > 0.9
    assert curve.fvu_pooled.iloc[-1] < 0.2 < curve.fvu_pooled.iloc[0]


def test_topk_recovers_most_of_many_directions():
    # 512 features, each active in 1 of 64 rows (8 a row), in 128 dimensions; 40,000 rows of them, seen five times.
    g = torch.Generator().manual_seed(5)
    directions = functional.normalize(torch.randn(512, 128, generator=g), dim=1)
    active = torch.rand(40_000, 512, generator=g) < 1 / 64
    x = (active * (1 + torch.rand(active.shape, generator=g))) @ directions
    chosen = settings(n_latents=768, k=8, vectors=200_000, batch_size=512, learning_rate=5e-3)
    found, _ = train.train(x, chosen, seed=0)
    best = (directions @ found.W_dec.T).max(1).values
    assert (best > 0.9).float().mean() > 0.9


def test_l1_recovers_most_true_directions():
    x, directions = sparse_data()
    found, curve = train.train(x, settings("l1", l1_coefficient=1.0, vectors=400_000, learning_rate=1e-2), seed=0)
    best = (directions @ found.W_dec.T).max(1).values
    assert isinstance(found, L1)
    assert (best > 0.95).float().mean() > 0.9
    assert curve.l0.iloc[-1] < 8 < curve.l0.iloc[0]


def test_auxk_revives_latents_that_died():
    x = sparse_data(4000)[0]
    dead = {}
    for coefficient in (0.0, 1 / 32):
        chosen = train.check_settings(
            settings(vectors=40_000, dead_after_vectors=1000, aux_coefficient=coefficient, n_latents=128)
        )
        measured = rows.scaling(rows.InMemory(x))
        b_dec, _ = rows.median_of_sample(rows.InMemory(x), 0, measured.factor, "cpu")
        model = train.build(chosen, b_dec, measured.variance, seed=0)
        model.b_enc.data[64:] = -1.0
        training = train.Training(model, chosen, measured)
        for batch in itertools.islice(rows.endless(rows.InMemory(x), len(x), 256, seed=0), chosen.steps):
            training.step(batch)
        dead[coefficient] = training.curve[-1]["fraction_dead"]
    assert dead[1 / 32] < dead[0.0] / 2


@pytest.mark.parametrize("architecture", ["topk", "l1"])
def test_the_seed_decides_the_weights(architecture):
    x = sparse_data(1000)[0]
    first, again, other = (train.train(x, settings(architecture), seed)[0] for seed in (2**62, 2**62, 1))
    assert torch.equal(first.W_dec, again.W_dec)
    assert torch.equal(first.W_enc, again.W_enc)
    assert not torch.equal(first.W_dec, other.W_dec)


def test_training_works_in_units_of_its_own():
    x = sparse_data(2000)[0]
    plain, large = (train.train(factor * x, settings(), seed=0)[0] for factor in (1, 1024))
    torch.testing.assert_close(large.W_dec, plain.W_dec)
    torch.testing.assert_close(large.b_dec, 1024 * plain.b_dec)


def test_the_curve_counts_vectors_in_whole_batches():
    _, curve = train.train(sparse_data(1000)[0], settings(vectors=1000, curve_points=2), seed=0)
    assert curve.columns.tolist() == ["step", "vectors", "loss", "fvu_pooled", "l0", "fraction_dead"]
    assert curve.step.tolist() == [0, 2, 3]
    assert curve.vectors.tolist() == [256, 768, 1024]


def test_batches_visit_every_row_once_an_epoch():
    numbers = rows.InMemory(torch.arange(10.0)[:, None])
    found = torch.cat([*itertools.islice(rows.endless(numbers, 10, 4, seed=0), 5)]).flatten()
    assert found[:10].sort().values.tolist() == found[10:].sort().values.tolist() == list(range(10))
    assert not torch.equal(found[:10], found[10:])


@pytest.mark.parametrize("start", [1, 2, 3, 7])
def test_batches_go_on_where_they_stopped(start):
    numbers = rows.InMemory(torch.arange(10.0)[:, None])
    whole = [*itertools.islice(rows.endless(numbers, 10, 4, seed=0), 10)]
    rest = [*itertools.islice(rows.endless(numbers, 10, 4, seed=0, start=start), 10 - start)]
    torch.testing.assert_close(rest, whole[start:])


def test_scaling_gives_a_mean_norm_of_sqrt_d_model():
    x = sparse_data(5000)[0]
    n, d_model, scale, variance = rows.scaling(rows.InMemory(x))
    assert (n, d_model) == (5000, D_MODEL)
    assert float((scale * x).norm(dim=1).mean()) == pytest.approx(D_MODEL**0.5, rel=1e-5)
    assert variance == pytest.approx(float((scale * x).var(0, correction=0).sum()), rel=1e-5)


def test_learning_rate_warms_up_and_decays_to_zero():
    chosen = train.check_settings(settings(vectors=25_600, warmup_fraction=0.1))
    rates = [chosen.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(3e-4)
    assert rates[9:81] == pytest.approx([3e-3] * 72)
    assert rates[99] == pytest.approx(3e-3 / 20)


def test_published_rules_fill_what_is_not_set():
    chosen = train.check_settings(settings(learning_rate=None, n_latents=2**14))
    assert chosen.peak_learning_rate == pytest.approx(2e-4)
    assert train.check_settings(settings(learning_rate=None)).peak_learning_rate == 1e-3
    assert chosen.dead_after == 400


def test_geometric_median_resists_outliers():
    x = torch.cat([gaussian(99, 3), torch.full((10, 3), 1e4)])
    assert rows.geometric_median(x).norm() < 1
    line = torch.tensor([[0.0], [1.0], [50.0]])
    assert float(rows.geometric_median(line)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 65}, "k is 65, but must lie between 1 and the number of latents, 64"),
        ({"k": 0}, "k is 0"),
        ({"architecture": "gated"}, "unknown architecture 'gated'"),
        ({"laten": 3}, "unknown setting 'laten'"),
        ({"architecture": "l1", "l1_coefficient": 0.0}, "l1_coefficient is 0.0"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        train.train(gaussian(10, 4), settings(**changes), seed=0)


def test_a_missing_setting_is_named():
    incomplete = {name: value for name, value in settings().items() if name != "vectors"}
    with pytest.raises(StudyError, match="the setting 'vectors' is missing"):
        train.train(gaussian(10, 4), incomplete, seed=0)


def test_data_that_cannot_be_learned_are_refused():
    bad = gaussian(10, 4)
    bad[3, 0] = float("nan")
    with pytest.raises(StudyError, match="SAE data: row 3 holds a NaN"):
        train.train(bad, settings(), seed=0)
    with pytest.raises(StudyError, match="all 10 rows are alike"):
        train.train(torch.ones(10, 4), settings(), seed=0)
    with pytest.raises(StudyError, match="0 rows to train on"):
        train.train(torch.ones(0, 4), settings(), seed=0)


def test_divergence_is_reported():
    with pytest.raises(StudyError, match=r"the loss is .* lower the learning rate"):
        train.train(gaussian(100, 4), settings(learning_rate=1e30), seed=0)
