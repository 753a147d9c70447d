import numpy as np
import pytest
import torch

from actspace.dictionaries.base import KMeans
from actspace.errors import StudyError
from actspace.perturbations import regions
from actspace.perturbations.directions import Pool
from actspace.perturbations.engine import Engine
from actspace.perturbations.naive import naive
from actspace.perturbations.region_statistics import region_statistics
from actspace.perturbations.regions import cluster_outputs, draw_others, output_curves, run_regions
from actspace.perturbations.setting import Activations, Setting
from perturbation_models import D_MODEL, N_LAYERS, gaussian, tiny_model, token_ids

SITE, LAST = "blocks.1.hook_resid_pre", f"blocks.{N_LAYERS - 1}.hook_resid_post"
CFG = {"experiment": "few", "weights": "trained", "n_prompts": 8, "pairs": 2, "steps": 11, "clusters": 3}
MODEL = tiny_model("gpt2")
REAL, IDS = 2 * gaussian(8, D_MODEL).numpy(), token_ids(8, 5)


def setting(site=SITE, read=LAST):
    known = Activations(token_ids=IDS, documents=np.arange(8) // 2, real=REAL, pool=Pool(REAL, np.arange(8)))
    return Setting(Engine(MODEL, site, read), known)


TABLE = run_regions(setting(), CFG, seed=3)


def late_of(prompt, activation):
    """What the last hook sees of one vector, by a full pass."""
    vector = torch.from_numpy(activation)[None].float()
    return naive(MODEL, IDS[prompt], vector, SITE, LAST)[1][0].double()


def test_a_path_ends_at_the_activation_of_the_other_prompt():
    ends = TABLE[TABLE["step"] == 10]
    for row in ends.itertuples():
        expected = (late_of(row.prompt, REAL[row.other]) - late_of(row.prompt, REAL[row.prompt])).norm()
        assert row.l2_from_base == pytest.approx(expected.item(), rel=1e-4)
        assert row.relative_distance == 1


def test_there_is_a_row_for_every_step_of_every_path():
    assert len(TABLE) == 8 * 2 * 11
    assert not TABLE.duplicated(["prompt", "other", "step"]).any()
    assert TABLE["cell"].isna().all()
    assert TABLE["fraction"].unique() == pytest.approx(np.linspace(0, 1, 11))


def test_the_region_is_that_of_the_nearest_centre_of_undisturbed_outputs():
    own = torch.stack([late_of(i, REAL[i]) for i in range(8)])
    centres = cluster_outputs(own.numpy(), 3, seed=3).centroids.double()
    starts = TABLE[TABLE["step"] == 0].drop_duplicates("prompt")
    assert starts["region"].to_numpy() == pytest.approx(torch.cdist(own, centres).argmin(1).numpy())
    assert starts["region"].nunique() == 3


def test_batches_of_prompts_change_nothing(monkeypatch):
    monkeypatch.setattr(regions, "ELEMENTS_PER_BATCH", {"cpu": 2 * 11 * D_MODEL * 3})
    again = run_regions(setting(), CFG, seed=3)
    assert again["region"].equals(TABLE["region"])
    assert again["slope"].to_numpy() == pytest.approx(TABLE["slope"].to_numpy(), rel=1e-4, nan_ok=True)


def test_read_where_it_is_perturbed_every_statistic_says_straight_line():
    table = run_regions(setting(LAST), CFG, seed=3)
    assert table["relative_distance"].to_numpy() == pytest.approx(table["fraction"].to_numpy(), abs=1e-6)
    found = region_statistics(table, seed=0, n_boot=50).set_index("statistic")
    for name in ("max_slope", "slope_at_region_changes", "slope_at_boundaries_anywhere"):
        assert found.loc[name, ["value", "low", "high"]].to_list() == pytest.approx([1, 1, 1], abs=1e-4)
    assert found.loc["excess_at_region_changes", ["low", "high"]].to_list() == pytest.approx([0, 0], abs=1e-4)


def test_cells_are_those_of_the_dictionary_at_the_site():
    halves = torch.zeros(2, D_MODEL)
    halves[:, 0] = torch.tensor([-1.0, 1.0])
    table = run_regions(setting(), CFG, seed=3, cells=KMeans({"centroids": halves}))
    first = REAL[table["prompt"], 0] * (1 - table["fraction"]) + REAL[table["other"], 0] * table["fraction"]
    assert (table["cell"] == (first > 0)).all()
    assert table["cell_changed"].sum() == (table.groupby(["prompt", "other"])["cell"].nunique() == 2).sum()


def test_others_are_of_other_documents_and_none_comes_twice():
    documents = np.arange(12) // 3
    others = draw_others(gaussian(12, 4).numpy(), documents, pairs=9, seed=0)
    assert (documents[others] != documents[:, None]).all()
    assert all(len(set(row)) == 9 for row in others)


def test_a_prompt_is_no_other_of_one_with_the_same_activation():
    real = np.array([[0.0, 1.0], [0.0, 1.0], [2.0, 3.0]])
    assert draw_others(real, np.arange(3), pairs=1, seed=0)[:2].tolist() == [[2], [2]]
    with pytest.raises(StudyError, match=r"prompt 0 has 1 prompts of other documents .* lower `pairs` from 2"):
        draw_others(real, np.arange(3), pairs=2, seed=0)


def test_curves_of_a_path_worked_out_by_hand():
    late = torch.tensor([[0.0, 0.0], [1.0, 0.0], [4.0, 3.0], [4.0, 0.0]], dtype=torch.float64)
    curves = output_curves(late)
    assert curves["l2_from_base"] == pytest.approx([0, 1, 5, 4])
    assert curves["relative_distance"] == pytest.approx([0, 1 / 4, 5 / 8, 1])
    # a third of the path a step, 4 from end to end
    assert curves["slope"][1:] == pytest.approx([3 / 4, 3, -3 / 4])
    assert curves["speed"][1:] == pytest.approx([3 / 4, 3 / 4 * 18**0.5, 9 / 4])


def test_a_path_without_effect_is_an_error():
    with pytest.raises(StudyError, match="the two ends of a path give the same output"):
        output_curves(torch.ones(3, 2, dtype=torch.float64))
