from dataclasses import replace

import numpy as np
import pytest
import torch

from actspace.dictionaries import base
from actspace.dictionaries.base import KMeans
from actspace.errors import StudyError
from actspace.perturbations.bases import fit_gaussian
from actspace.perturbations.directions import Pool, cosine_minus_deviation, directions, draw_targets
from actspace.perturbations.families import DIRECTIONS
from actspace.perturbations.fitted import Fitted, load, probe_directions
from actspace.perturbations.paths import PATHS
from actspace.probes import linear
from actspace.probes.linear import LinearProbe
from perturbation_fits import BIAS, POOL, axes_latents, axes_sae

HOOK = "blocks.1.hook_resid_pre"
CENTROIDS = np.array([[0.0, 0, 0, 0], [1, 0, 0, 0], [0, 10, 0, 0]])
SPLITS = np.array([[1.0, 2, 0, 0], [0, 0, 3, 1], [1, 1, 1, 2]])
FITTED = Fitted(axes_latents(), CENTROIDS, {"mass_mean": SPLITS})
COVARIANCE = np.diag([1.0, 4.0, 9.0, 0.25])
BASE = torch.from_numpy(BIAS + np.array([[2.0, 0, 1, 0], [0, 5, 0, 0.5]]))
NAMES = [name.replace("<name>", "mass_mean") for name in DIRECTIONS]


def drawn(prompts: int = 2, draws: int = 3, first: int = 0, fitted: Fitted = FITTED):
    pool = Pool(np.random.default_rng(0).standard_normal((20, 4)), np.arange(20))
    return draw_targets(
        pool, fit_gaussian(BIAS, COVARIANCE), range(first, first + prompts), draws, "raw", 1, first, fitted
    )


def test_all_active_latents_together_are_the_sum_of_their_unit_decoder_rows():
    both = Fitted(axes_latents(scale=2.0))
    found = directions("decoder_active_x2", drawn(fitted=both), BASE)
    expected = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(found, expected[:, None].expand(2, 3, 4))


def test_each_class_has_its_own_latents():
    inactive, dead = (directions(f"decoder_{which}", drawn(draws=4), BASE) for which in ("inactive", "dead"))
    assert set(inactive[0].argmax(-1).tolist()) == {1}
    assert set(inactive[1].argmax(-1).tolist()) == {0, 2}
    assert (dead[0].norm(dim=-1) - 1).abs().max() < 1e-12
    torch.testing.assert_close(dead[1], torch.full((4, 4), -0.5, dtype=torch.float64))  # latent 3 is active here


@pytest.mark.parametrize("name", ["decoder_active", "decoder_dead_x2", "probe_mass_mean"])
def test_minus_turns_a_direction_round(name):
    assert torch.equal(directions(f"minus_{name}", drawn(), BASE), -directions(name, drawn(), BASE))


def test_the_reconstruction_error_leads_to_the_reconstruction():
    pool = POOL + np.array([0, 0, 0, -1.0])  # nothing decodes to a negative coordinate
    base = torch.from_numpy(pool)
    error = directions("reconstruction_error", drawn(prompts=4), base)
    torch.testing.assert_close(error, torch.tensor([0, 0, 0, 1.0], dtype=torch.float64).expand(4, 3, 4))


def test_cluster_differences_lie_between_two_centroids():
    found = directions("cluster_difference", drawn(draws=50), BASE).reshape(-1, 4).numpy()
    possible = {tuple(CENTROIDS[i] - CENTROIDS[j]) for i in range(3) for j in range(3) if i != j}
    assert set(map(tuple, found)) == possible


def test_a_probes_direction_is_that_of_the_draws_split():
    found = directions("probe_mass_mean", drawn(draws=5), BASE)
    np.testing.assert_array_equal(found[1], SPLITS[[0, 1, 2, 0, 1]])


def test_principal_components_come_in_the_order_of_their_variance_with_either_sign():
    found = directions("principal_component", drawn(prompts=30), BASE)
    np.testing.assert_allclose(found.abs(), np.eye(4)[[2, 1, 0]][None].repeat(30, 0), atol=1e-12)
    assert set(found.sum(-1).round().unique().tolist()) == {-1, 1}


def test_the_sign_that_the_decomposition_leaves_open_does_not_count():
    given = drawn()
    turned = replace(given, gaussian=replace(given.gaussian, factor=-given.gaussian.factor))
    found, again = (directions("principal_component", targets, BASE) for targets in (given, turned))
    torch.testing.assert_close(found, again)


def test_a_prompt_without_latents_of_a_class_is_named_by_its_number():
    nothing = torch.from_numpy(BIAS[None])
    with pytest.raises(StudyError, match=r"prompt 5 has no active latents in axes\.safetensors; leave this base"):
        directions("decoder_active", drawn(prompts=1, first=5), nothing)


def test_more_draws_than_components_are_refused():
    with pytest.raises(StudyError, match="draws: 5, but the activations have only 4 principal components"):
        directions("principal_component", drawn(draws=5), BASE)


@pytest.mark.parametrize("name", NAMES)
def test_the_directions_of_a_prompt_depend_on_its_number_alone(name):
    together = directions(name, drawn(), BASE)
    alone = directions(name, drawn(prompts=1, first=1), BASE[1:])
    torch.testing.assert_close(together[1:], alone)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
def test_every_family_has_a_cosine_with_minus_the_deviation(name, path):
    pool = torch.from_numpy(POOL[:3] - [0, 0.3, 0.2, 0.7])
    cosine = cosine_minus_deviation(PATHS[path], pool, directions(name, drawn(prompts=3), pool), BIAS + 0.5)
    assert cosine.shape == (3, 3)
    assert cosine.isfinite().all()
    assert cosine.abs().max() <= 1 + 1e-12


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("decoder_active", "'decoder_active' needs a sparse autoencoder; name one under `dictionary`"),
        ("reconstruction_error", "'reconstruction_error' needs a sparse autoencoder"),
        ("cluster_difference", "'cluster_difference' needs a k-means fit; name one under `clusters`"),
        (
            "probe_mass_mean",
            "'probe_mass_mean' needs the probe mass_mean, and none was read; name a study that has it under `probe`",
        ),
    ],
)
def test_a_direction_without_its_fit_is_refused(name, line):
    with pytest.raises(StudyError, match=line):
        directions(name, drawn(fitted=Fitted()), BASE)


def test_an_unknown_or_empty_probe_is_refused():
    with pytest.raises(StudyError, match="'probe_mass' needs the probe mass, but there are only mass_mean"):
        directions("probe_mass", drawn(), BASE)
    with pytest.raises(StudyError, match="the probe mass_mean has no direction here"):
        directions("probe_mass_mean", drawn(fitted=Fitted(probes={"mass_mean": 0 * SPLITS})), BASE)


def test_fits_are_read_from_their_files(tmp_path):
    base.save(axes_sae(), tmp_path / "sae", {})
    base.save(KMeans({"centroids": torch.from_numpy(CENTROIDS).float()}), tmp_path / "kmeans", {})
    linear.save(
        tmp_path / "probes",
        {f"{HOOK}/all/mass_mean/{i}": LinearProbe(x, 0.0, "mass_mean") for i, x in enumerate(SPLITS)},
    )
    found = load(HOOK, POOL, str(tmp_path / "sae"), str(tmp_path / "kmeans"), str(tmp_path / "probes"))
    np.testing.assert_array_equal(found.latents_for("x").frequency, FITTED.latents_for("x").frequency)
    np.testing.assert_array_equal(found.centroids_for("x"), CENTROIDS)
    np.testing.assert_array_equal(found.probes["mass_mean"], SPLITS)


def test_a_file_of_another_kind_is_refused(tmp_path):
    base.save(KMeans({"centroids": torch.eye(4)}), tmp_path / "kmeans", {})
    base.save(axes_sae(), tmp_path / "sae", {})
    with pytest.raises(StudyError, match="kmeans is a kmeans dictionary; name a sparse autoencoder"):
        load(HOOK, POOL, dictionary=str(tmp_path / "kmeans"))
    with pytest.raises(StudyError, match="sae: differences of clusters need a k-means fit of two or more"):
        load(HOOK, POOL, clusters=str(tmp_path / "sae"))


def probes(**directions_by_key):
    return {key: LinearProbe(np.full(4, float(value)), 0.0, "mass_mean") for key, value in directions_by_key.items()}


def test_probes_are_those_of_all_sets_pooled_in_the_order_of_the_splits(tmp_path):
    keys = {f"{HOOK}/all/mass_mean/{split}": split for split in range(12)}
    linear.save(tmp_path / "p", probes(**keys, **{f"{HOOK}/Cities/mass_mean/0": 99, "blocks.2/all/mass_mean/0": 98}))
    np.testing.assert_array_equal(probe_directions(str(tmp_path / "p"), HOOK)["mass_mean"][:, 0], range(12))


def test_probes_of_the_first_set_serve_where_none_are_pooled(tmp_path):
    linear.save(tmp_path / "p", probes(**{f"{HOOK}/cities/mass_mean/0": 5, f"{HOOK}/numbers/mass_mean/0": 6}))
    assert probe_directions(str(tmp_path / "p"), HOOK)["mass_mean"][0, 0] == 5


def test_a_hook_without_probes_is_refused(tmp_path):
    linear.save(tmp_path / "p", probes(**{f"{HOOK}/all/mass_mean/0": 1}))
    with pytest.raises(StudyError, match=rf"no probes at 'blocks\.2', only at {HOOK}"):
        probe_directions(str(tmp_path / "p"), "blocks.2")
