"""What readers can look up holds what the tables hold."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from test_report_synthetic import study_tables

from actspace.report import explore


@pytest.fixture(scope="module")
def tables():
    return study_tables(n_prompts=3, n_draws=1)


@pytest.fixture(scope="module")
def views(tables):
    return explore.views(tables)


def line(view: dict, name: str, **chosen: str) -> pd.DataFrame:
    """Read one line back as the page's script does: the only one of its name at these choices."""
    at = [values.index(chosen[choice.replace(" ", "_").replace("-", "_")]) for choice, values in view["choices"]]
    (found,) = [s for s in view["series"] if s[0] == at and view["lines"][s[1]][0] == name]
    _, _, x, value, low, high = found
    return pd.DataFrame({"x": view["xs"][x], "value": value, "low": low or None, "high": high or None}, dtype=float)


def test_every_view_is_json_without_what_json_lacks(views):
    assert json.loads(json.dumps(views, allow_nan=False)) == views
    assert {*explore.VIEWS, "curves_plateaus"} <= set(views)


def test_probes_over_layers(tables, views):
    found = line(views["probe_layers"], "mass-mean", score="accuracy", trained_on="cities", tested_on="elements")
    rows = tables["probe_summary"].query("probe == 'mass_mean' and train_set == 'cities' and test_set == 'elements'")
    np.testing.assert_allclose(found, rows[["layer", "value", "low", "high"]], rtol=6e-3)


def test_angles_are_found_from_either_direction(tables, views):
    one = line(views["probe_angles"], "mass-mean", direction="logistic regression", trained_on="all")
    other = line(views["probe_angles"], "logistic regression", direction="mass-mean", trained_on="all")
    pd.testing.assert_frame_equal(one, other)
    rows = tables["probe_angles"].query("train_set == 'all' and probe_a == 'logistic_regression'")
    np.testing.assert_allclose(one["value"], rows.query("probe_b == 'mass_mean'")["value"], rtol=6e-3)


def test_accuracy_from_set_to_set_starts_at_the_hook_of_the_static_figure(tables, views):
    view = views["generalization"]
    hooks = view["choices"][0][1]
    assert hooks[view["start"][0]] == "blocks.17.hook_resid_post"
    found = line(view, "cities", hook_point="blocks.2.hook_resid_post", probe="mass-mean")
    rows = tables["probe_summary"].query("layer == 3 and probe == 'mass_mean' and train_set == 'cities'")
    expected = rows.sort_values("test_set")
    assert [view["names"][int(x)] for x in found["x"]] == list(expected["test_set"])
    np.testing.assert_allclose(found["value"], expected["value"], rtol=6e-3)


def test_measures_of_dictionaries_stand_against_their_active_latents(tables, views):
    chosen = {"measure": "ce loss recovered", "hook_point": "blocks.9.hook_resid_post (early)"}
    found = line(views["unexplained_variance"], "TopK SAE, 4,608 latents", **chosen, data="real activations")
    rows = tables["dictionary_metrics"].query("metric == 'ce_loss_recovered' and family == 'topk'")
    assert list(found["x"]) == [4, 16, 32, 64]
    np.testing.assert_allclose(found[["value", "low", "high"]], rows[["value", "low", "high"]], rtol=6e-3)


def test_fits_that_differ_by_their_seed_have_lines_of_their_own(views):
    names = [name for name, _, _ in views["unexplained_variance"]["lines"]]
    assert {"k-means, 1,024 latents, seed 0", "k-means, 1,024 latents, seed 1"} <= set(names)


def test_training_curves_hold_no_interval(tables, views):
    chosen = {"measure": "L0", "hook": "blocks.9.hook_resid_post", "data": "real activations"}
    found = line(views["training_curves"], "l1-n4608", **chosen)
    rows = tables["training_curves"].query("fit == 'l1-n4608' and data == 'real'")
    np.testing.assert_allclose(found[["x", "value"]], rows[["vectors", "l0"]], rtol=6e-3)
    assert found["low"].isna().all()


def test_perturbation_curves_are_medians_with_quartiles(tables, views):
    chosen = {"read_out": "KL divergence (nats)", "path": "angle from the base (degrees)"}
    found = line(views["curves_plateaus"], "real base", **chosen, site="blocks.2.hook_resid_pre")
    curves = tables["perturbation_curves"].query("experiment == 'plateaus' and base == 'real' and path == 'sphere'")
    quartiles = curves.groupby("position")["kl_base_pert_nats"].quantile([0.5, 0.25, 0.75]).unstack()
    np.testing.assert_allclose(found.set_index("x"), quartiles, rtol=6e-3, atol=1e-9)


def test_a_value_that_is_missing_is_no_number(tables):
    table = tables["probe_summary"].assign(low=np.nan, high=np.nan)
    table.loc[table.index[0], "value"] = np.nan
    series = explore.probe_layers(table).encoded()["series"]
    assert None in {value for _, _, _, values, _, _ in series for value in values}
    assert {len(low) for *_, low, _ in series} == {0}


def test_without_tables_there_is_nothing_to_look_up():
    assert explore.views({}) == {}
