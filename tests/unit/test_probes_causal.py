"""Causal effect of probe directions: vectors, runs against full passes and a closed form, and what they are summed up to."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from actspace.errors import StudyError
from actspace.models import wrap
from actspace.perturbations.naive import hooked
from actspace.probes import causal, evaluation, linear
from actspace.probes.causal_prompts import split_of
from actspace.probes.causal_statistics import Sample, summarise
from actspace.probes.linear import LinearProbe
from causal_tables import FORCE, causal_effects, runs
from perturbation_models import D_MODEL, N_LAYERS, VOCABULARY, gaussian, tiny_model, token_ids

SITE, LAST = "blocks.1.hook_resid_pre", f"blocks.{N_LAYERS - 1}.hook_resid_post"
CFG = {"where": "causal.truth", "scaling": "projection", "strength": 1.0, "random_directions": 50, "seed": 0}
CFG |= {"fits": ["mass_mean"], "train_set": "all", "hooks": [SITE], "together": False}
CFG |= {"probe_seed": 3, "test_fraction": 0.3}
TRUE, FALSE = 7, 11


def value(table: pd.DataFrame, statistic: str, **wanted: object) -> pd.Series:
    for column, wish in {"statistic": statistic, **wanted}.items():
        table = table[table[column] == wish]
    assert len(table) == 1
    return table.iloc[0]


# --- vectors ---


def test_a_projected_direction_steps_from_mean_to_mean_along_itself():
    theta = np.array([3.0, 4.0])
    np.testing.assert_allclose(causal.scaled(np.array([2.0, 0.0]), theta, "projection"), [3.0, 0.0])
    np.testing.assert_allclose(causal.scaled(np.array([-2.0, 0.0]), theta, "projection"), [3.0, 0.0])
    np.testing.assert_allclose(causal.scaled(7 * theta, theta, "projection"), theta)


def test_directions_of_one_length_point_to_the_true_mean():
    theta = np.array([3.0, 4.0])
    np.testing.assert_allclose(causal.scaled(np.array([0.0, -2.0]), theta, "class_distance"), [0.0, 5.0])
    np.testing.assert_allclose(causal.scaled(np.zeros(2), theta, "class_distance"), [0.0, 0.0])


@pytest.mark.parametrize(("scaling", "controls"), [("projection", ["a", "b"]), ("class_distance", ["all"])])
def test_random_directions_have_the_norms_of_the_probes_and_come_in_pairs(scaling, controls):
    probes = {"a": np.r_[1.0, np.zeros(7)], "b": np.r_[1.0, 1.0, np.zeros(6)]}
    theta = np.r_[1.0, 2.0, np.zeros(6)]
    found = causal.variants({SITE: probes}, {SITE: theta}, {**CFG, "scaling": scaling, "strength": 2.0})
    about, vectors = found.about, found.vectors[SITE]
    assert list(about.loc[about["direction"] == "random", "probe"].unique()) == controls
    assert (about["direction"] == "random").sum() == 100 * len(controls)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), about["norm"])
    for probe in probes:
        own = about[(about["probe"] == probe) & (about["direction"] == "probe")]["norm"]
        control = about[(about["probe"].isin([probe, "all"])) & (about["direction"] == "random")]["norm"]
        np.testing.assert_allclose(own.unique()[0], control.unique()[0])
    np.testing.assert_allclose(vectors[1::2], -vectors[2::2])
    np.testing.assert_array_equal(vectors[0], 0)


def test_the_tested_directions_were_fitted_without_the_tested_statements():
    rng = np.random.default_rng(0)
    X, y, groups = rng.normal(size=(60, 5)), np.tile([0, 1], 30), np.repeat(np.arange(15), 4).astype(str)
    cfg = {"probes": ["mass_mean"], "splits": 2, "test_fraction": 0.3, "C": 1.0}
    fitted = evaluation.evaluate({SITE: X}, y, groups, np.repeat("s", 60), cfg, seed=CFG["probe_seed"]).directions
    train, _ = split_of(groups, CFG)
    direction = causal.chosen(fitted, SITE, CFG)["mass_mean"]
    np.testing.assert_allclose(direction, linear.mass_mean(X[train], y[train]).direction)
    statements = pd.DataFrame({"label": y, "group": groups, "set": "s"})
    vectors = causal.sites({SITE: X}, statements, fitted, CFG)[SITE].vectors[SITE]
    np.testing.assert_allclose(vectors[1], direction)  # theta itself
    only = causal.training_rows(np.array(["s", "t"]), np.array([True, True]), "t")
    np.testing.assert_array_equal(only, [False, True])


def test_a_probe_that_was_not_fitted_on_the_training_set_is_one_line():
    with pytest.raises(StudyError, match=r"causal.truth.fits: 'ccs' was not fitted on 'cities'"):
        causal.chosen({}, SITE, {**CFG, "fits": ["ccs"], "train_set": "cities"})


# --- runs ---


def full_pass(model, ids, places, vectors):
    """Probabilities of both answers with vectors (hook -> (d_model,)) added, by one plain pass."""

    def adding(vector):
        def change(hidden):
            hidden = hidden.clone()
            hidden[:, places] += torch.from_numpy(vector).to(hidden.dtype)
            return hidden

        return change

    with ExitStack() as stack:
        for hook, vector in vectors.items():
            stack.enter_context(hooked(model, hook, adding(vector)))
        logits = model.hf(input_ids=ids[None]).logits[0, -1].double()
    return logits.softmax(-1)[[TRUE, FALSE]].detach().numpy()


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "mistral", "granite", "gemma2"])
@pytest.mark.parametrize("hooks", [[SITE], [LAST], ["blocks.0.hook_resid_pre"], [SITE, "blocks.1.hook_resid_post"]])
def test_cached_beginnings_equal_full_passes(family, hooks):
    model, ids, end = tiny_model(family), token_ids(1, 9)[0], 5
    vectors = {hook: 3 * gaussian(5, D_MODEL, seed=i).numpy() for i, hook in enumerate(hooks)}
    answers = causal.Answers(model, [-2, -1], rows_per_launch=2)
    (found,) = answers(ids.tolist(), end, (TRUE, FALSE), [vectors])
    assert answers.cached
    for row in range(5):
        expected = full_pass(model, ids, [4, 5], {hook: rows[row] for hook, rows in vectors.items()})
        np.testing.assert_allclose(found[row], expected, atol=2e-6)
    assert np.ptp(found[:, 0]) > 1e-3 or hooks == [LAST]  # after the last block, other positions reach no answer


def test_a_statement_at_the_very_beginning_has_no_beginning_to_share():
    model, ids = tiny_model("llama"), token_ids(1, 4)[0]
    vectors = {SITE: gaussian(3, D_MODEL).numpy()}
    (found,) = causal.Answers(model, [-1])(ids.tolist(), 0, (TRUE, FALSE), [vectors])
    np.testing.assert_allclose(found[1], full_pass(model, ids, [0], {SITE: vectors[SITE][1]}), atol=2e-6)


def test_a_model_that_caches_do_not_suit_takes_full_passes(monkeypatch, caplog):
    model, ids = tiny_model("llama"), token_ids(1, 6)[0]
    vectors = {SITE: gaussian(3, D_MODEL).numpy()}

    def forgetful(cache, n, entry):
        for layer in cache.layers:
            layer.keys, layer.values = (torch.zeros(n, *x.shape[1:]) for x in (layer.keys, layer.values))
        return cache

    monkeypatch.setattr(causal, "_copies", forgetful)
    answers = causal.Answers(model, [-1])
    (found,) = answers(ids.tolist(), 4, (TRUE, FALSE), [vectors])
    assert not answers.cached
    assert "each vector takes a full pass" in caplog.text
    np.testing.assert_allclose(found[1], full_pass(model, ids, [4], {SITE: vectors[SITE][1]}), atol=2e-6)


def test_running_out_of_memory_halves_the_launch_and_changes_nothing(monkeypatch):
    model, ids = tiny_model("llama"), token_ids(1, 6)[0].tolist()
    runs = [{SITE: gaussian(5, D_MODEL).numpy()}]
    (expected,) = causal.Answers(model, [-1])(ids, 4, (TRUE, FALSE), runs)
    answers, run = causal.Answers(model, [-1]), causal.Answers._run

    def small(self, asked, vectors):
        if len(vectors[SITE]) > 2:
            raise torch.OutOfMemoryError
        return run(self, asked, vectors)

    monkeypatch.setattr(causal.Answers, "_run", small)
    (found,) = answers(ids, 4, (TRUE, FALSE), runs)
    assert answers.rows_per_launch == 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


K = 2.0


def planted_model():
    """A network whose blocks pass the residual on; "true" reads the first dimension, "false" its opposite."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        rms_norm_eps=0.0,
    )
    hf = LlamaForCausalLM(config)
    for layer in hf.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    hf.model.embed_tokens.weight.data = gaussian(VOCABULARY, 8).float()
    hf.model.embed_tokens.weight.data[:, 0] = 0.0  # no token is true or false by itself
    hf.lm_head.weight.data.zero_()
    hf.lm_head.weight.data[TRUE, 0], hf.lm_head.weight.data[FALSE, 0] = K, -K
    return wrap(hf)


def planted_answer(strength: float, embedding: np.ndarray) -> tuple[float, float]:
    """P(true) and P(false) with `strength` times the truth direction added to the last residual, in closed form."""
    a = K * strength / np.sqrt((strength**2 + (embedding**2).sum()) / 8)
    total = np.exp(a) + np.exp(-a) + VOCABULARY - 2
    return np.exp(a) / total, np.exp(-a) / total


def planted_runs(model, n_random: int = 50) -> pd.DataFrame:
    theta, probe = 3 * np.eye(8)[0], {"mass_mean": np.eye(8)[0], "orthogonal": np.eye(8)[1]}
    variants = causal.variants(
        {SITE: probe}, {SITE: theta}, {**CFG, "scaling": "class_distance", "random_directions": n_random}
    )
    ids = token_ids(6, 5)
    prompts = pd.DataFrame(
        {"row": range(6), "label": [0, 1] * 3, "set": "s", "group": list("aabbcc"), "token_ids": ids.tolist()}
    ).assign(end=4, true_id=TRUE, false_id=FALSE)
    return pd.concat(causal.run(prompts, causal.Answers(model, [-1]), {SITE: variants})).assign(experiment="planted")


def test_a_planted_truth_direction_has_the_effect_of_its_closed_form():
    model = planted_model()
    found = planted_runs(model, n_random=50)
    embedding = model.hf.model.embed_tokens.weight.double().numpy()[token_ids(6, 5)[:, -1]]
    for row in range(6):
        for sign in (1, -1):
            chosen = found[(found["row"] == row) & (found["probe"] == "mass_mean") & (found["sign"] == sign)]
            np.testing.assert_allclose(
                chosen[["p_true", "p_false"]].to_numpy()[0], planted_answer(3.0 * sign, embedding[row]), atol=1e-6
            )


def test_a_planted_direction_is_odd_and_random_ones_cancel():
    table = summarise(planted_runs(planted_model()), seed=0)
    plus, minus = (value(table, "effect", probe="mass_mean", sign=sign)["value"] for sign in ("plus", "minus"))
    assert plus == pytest.approx(-minus, abs=1e-9)
    assert plus > 0.1
    assert value(table, "effect", probe="mass_mean", sign="odd")["value"] == pytest.approx(plus)
    assert value(table, "effect", probe="orthogonal", sign="odd")["value"] == pytest.approx(0, abs=1e-7)
    random = value(table, "effect", direction="random", sign="odd")
    assert random["low"] <= 0 <= random["high"]
    assert random["n_directions"] == 50
    single = value(table, "effect_of_single_directions", direction="random", sign="odd")
    assert single["low"] < random["low"] < random["high"] < single["high"] < plus
    assert value(table, "share_of_random_weaker", probe="mass_mean")["value"] == 1
    assert set(table.loc[table["statistic"].str.startswith("nie"), "status"]) == {"undefined"}  # it knows nothing


@pytest.mark.parametrize("seed", range(3))
def test_the_odd_part_of_the_random_control_has_an_interval_around_zero_in_any_network(seed):
    model = tiny_model("gpt2")
    theta, probe = gaussian(D_MODEL, seed=seed).numpy(), {"mass_mean": gaussian(D_MODEL, seed=seed + 9).numpy()}
    variants = causal.variants({SITE: probe}, {SITE: theta}, {**CFG, "seed": seed, "random_directions": 60})
    prompts = pd.DataFrame({"row": range(12), "label": [0, 1] * 6, "set": "s", "group": np.arange(12) // 2})
    prompts = prompts.assign(token_ids=token_ids(12, 7, seed).tolist(), end=4, true_id=TRUE, false_id=FALSE)
    found = pd.concat(causal.run(prompts, causal.Answers(model, [-2, -1]), {SITE: variants})).assign(experiment="e")
    odd = value(summarise(found, seed=0), "effect", direction="random", sign="odd")
    assert odd["low"] < 0 < odd["high"]


# --- statistics ---


def test_effects_are_the_means_that_they_are_called():
    table, raw = causal_effects(), runs()
    raw = raw[raw["site"] == raw["site"].iloc[0]].assign(d=lambda t: t["p_true"] - t["p_false"])
    base = raw[raw["sign"] == 0].set_index("row")
    table = table[table["site"] == raw["site"].iloc[0]]
    gap = base.groupby("label")["d"].mean()
    assert value(table, "denominator")["value"] == pytest.approx(gap[1] - gap[0])
    for probe, force in FORCE.items():
        own = {"probe": probe, "direction": "probe"}
        for sign, effect in (("plus", force), ("minus", -force), ("odd", force)):
            assert value(table, "effect", **own, sign=sign)["value"] == pytest.approx(effect)
        for name in ("nie_false_to_true", "nie_true_to_false"):
            assert value(table, name, **own)["value"] == pytest.approx(force / (gap[1] - gap[0]))
        assert value(table, "total_probability_change", **own, sign="plus")["value"] == pytest.approx(0)
        assert value(table, "total_probability", **own, sign="plus")["value"] == pytest.approx(0.9)
        random = raw[(raw["probe"] == probe) & (raw["direction"] == "random") & (raw["sign"] == 1)]
        expected = (random.set_index("row")["d"] - base["d"]).mean()
        assert value(table, "effect", probe=probe, direction="random", sign="plus")["value"] == pytest.approx(expected)
    assert (table["layer"] == 10).all()


def test_a_normalised_effect_is_undefined_where_its_denominator_may_be_zero_or_less():
    for knows in (0.0, -0.4):
        table = causal_effects(knows=knows)
        nie = table[table["statistic"].str.startswith("nie")]
        assert len(nie) == 8
        assert set(nie["status"]) == {"undefined"}
        assert nie[["value", "low", "high"]].isna().all(axis=None)
        assert not table.loc[table["statistic"] == "effect", ["value", "low", "high"]].isna().any(axis=None)
    assert set(causal_effects(knows=0.4)["status"]) == {"defined"}


def test_a_sample_averages_entities_as_often_as_it_holds_them():
    sample = Sample(np.array([True, False, True]), np.array([0, 0, 1]), np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]))
    values = np.array([[1.0], [2.0], [6.0]])
    np.testing.assert_allclose(sample.mean(values)[:, 0], [3.0, 1.5, 6.0])
    np.testing.assert_allclose(sample.mean(values, sample.true)[:, 0], [3.5, 1.0, 6.0])
    assert np.isnan(sample.mean(values, ~sample.true)[2, 0])


def test_statements_of_one_entity_have_no_intervals():
    one = summarise(runs(n_entities=1), seed=0, n_boot=20)
    assert one.loc[one["statistic"] == "effect", ["low", "high"]].isna().all(axis=None)
    assert set(one.loc[one["statistic"].str.startswith("nie"), "status"]) == {"undefined"}


def test_more_statements_of_the_same_entities_do_not_narrow_an_interval():
    few = runs(sites=("blocks.0.hook_resid_pre",))
    noisy = few.assign(p_true=few["p_true"] + 0.1 * few["group"].str[7:].astype(int) * (few["sign"] != 0))
    twice = pd.concat([noisy, noisy.assign(row=noisy["row"] + 1000)])
    widths = [
        value(summarise(table, 0), "effect", probe="mass_mean", direction="probe", sign="plus")[
            ["low", "high"]
        ].to_list()
        for table in (noisy, twice)
    ]
    np.testing.assert_allclose(*widths)


def test_probes_are_read_by_hook_training_set_and_split():
    probes = {
        f"{SITE}/all/mass_mean/{split}": LinearProbe(np.full(2, split + 1.0), 0.0, "mass_mean") for split in (0, 1)
    }
    np.testing.assert_array_equal(causal.chosen(probes, SITE, CFG)["mass_mean"], [1.0, 1.0])
