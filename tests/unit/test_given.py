"""SAEs that others trained, as a study names them: local folders and repositories on the hub."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import saelens_folders
from actspace import stages
from actspace.dictionaries import base, given, layout
from actspace.errors import StudyError
from actspace.reading import read_study
from hub_server import HubServer, use_hub

REPO, PRE, POST = "lab/saes", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"
WEIGHTS = saelens_folders.tensors(8, 24)
STUDY: dict[str, Any] = {
    "study": "small",
    "model": {"source": {"kind": "folder", "path": "model"}},
    "corpus": {"sources": [{"kind": "file", "path": "text.txt"}]},
    "tokens": {"prompts": {"length": 8, "train": 20, "test": 6}},
    "captures": {"whole": {"tokens": "prompts", "hooks": [PRE, POST]}},
    "dictionaries": {
        "theirs": {
            "capture": "whole",
            "hooks": [PRE],
            "kmeans": {"sizes": [4]},
            "given": {"res-jb": {"folder": "saes/{hook}"}, "far": {"repo": REPO, "revision": "main", "folder": "."}},
        }
    },
}


def with_given(hooks: list[str], **saes: dict[str, str]) -> dict[str, Any]:
    config = copy.deepcopy(STUDY)
    config["dictionaries"]["theirs"] |= {"hooks": hooks, "given": saes}
    return config


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A repository with an SAE at its root, one in a folder, and a pickle in another."""
    root = tmp_path / "hub" / "models" / REPO / "main"
    for folder in (root, root / "layers" / PRE, root / "old"):
        saelens_folders.write(folder, WEIGHTS)
        (folder / "sparsity.safetensors").write_text("not needed")
    (root / "old" / "sae_weights.safetensors").rename(root / "old" / "sae_weights.pt")
    with HubServer(tmp_path / "hub") as server:
        use_hub(server.url, tmp_path / "cache", monkeypatch)
        yield server


@pytest.mark.parametrize("folder", [".", f"layers/{PRE}", f"layers/{PRE}/"])
def test_an_sae_on_the_hub_is_fetched_and_read(hub, folder):
    found = given.load(given.locate(folder, REPO, "main"), 8, PRE)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found(x), base.L1(WEIGHTS)(x))
    assert hub.fetched() == ["sae_weights.safetensors"]


def test_an_sae_on_the_hub_is_pinned_by_its_commit(hub):
    assert given.locate(".", REPO, hub.commit("models", REPO)).name == hub.commit("models", REPO)


@pytest.mark.parametrize(
    ("folder", "revision", "line"),
    [
        ("old", "main", r"'old' of 'lab/saes' at 'main': no sae_weights\.safetensors; sae_weights\.pt is a pickle"),
        ("layers/9", "main", r"no file matches 'layers/9/\*'"),
        (".", "v2", "the repository has no such revision"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(hub, folder, revision, line):
    with pytest.raises(StudyError, match=line):
        given.locate(folder, REPO, revision)


def test_an_sae_that_does_not_say_where_it_was_made_for_is_used_with_a_warning(tmp_path, caplog):
    given.load(saelens_folders.write(tmp_path, WEIGHTS), 8, PRE)
    assert f"it is used at {PRE}" in caplog.text


def test_given_saes_are_fits_of_real_data_alone():
    member = read_study(STUDY).dictionaries["theirs"]
    assert stages.fits_to(member, "real") == ["kmeans-k4-s0", "given-res-jb", "given-far"]
    assert stages.fits_to(member, "gaussian") == ["kmeans-k4-s0"]
    assert stages.fit_labels("given-res-jb") == {"family": "given", "fit": "given-res-jb", "k": None, "seed": 0}
    assert stages.fit_files("given-res-jb") == ["given-res-jb/sae_weights.safetensors", "given-res-jb/cfg.json"]


def test_the_hook_point_takes_its_place_in_the_folder(tmp_path):
    study = read_study(STUDY)
    assert stages.given(study, "theirs", PRE, "given-res-jb") == {
        "given": {"folder": f"saes/{PRE}", "repo": None, "revision": None},
        "hook": PRE,
    }
    assert stages.given_folders(study, tmp_path) == [("dictionaries.theirs.given.res-jb.folder", f"saes/{PRE}", PRE)]


@pytest.mark.parametrize(
    ("hooks", "sae", "line"),
    [
        ([PRE], {"repo": REPO, "folder": "."}, "dictionaries.theirs.given.sae.revision: missing; `repo` is given"),
        ([PRE], {"revision": "main", "folder": "."}, "dictionaries.theirs.given.sae.repo: missing"),
        (
            [PRE, POST],
            {"folder": "sae"},
            "dictionaries.theirs.given.sae.folder: one SAE for 2 hook points; write `{hook}`",
        ),
        ([PRE], {"folder": "sae", "kind": "hub"}, "dictionaries.theirs.given.sae.kind: unknown key"),
    ],
)
def test_a_mistake_about_a_given_sae_is_one_clear_line(hooks, sae, line):
    with pytest.raises(StudyError, match=r"\Aconfig: [^\n]+\Z") as refused:
        read_study(with_given(hooks, sae=sae))
    assert str(refused.value).startswith(f"config: {line}")


def test_a_local_folder_is_checked_before_any_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = stages.given_folders(read_study(STUDY), tmp_path)
    with pytest.raises(
        StudyError, match=r"\Adictionaries\.theirs\.given\.res-jb\.folder: saes/\S+: there is no such folder"
    ):
        layout.check_folders(folders, None)
    saelens_folders.write(tmp_path / "saes" / PRE, WEIGHTS)
    layout.check_folders(folders, 8)
    with pytest.raises(StudyError, match=r"res-jb\.folder: \S+: d_in is 8, but the model's activations have 9"):
        layout.check_folders(folders, 9)


def test_perturbations_and_spikes_name_a_given_sae_as_any_fit():
    sweep = {"capture": "whole", "sites": [PRE], "read": POST, "prompts": 2, "bases": ["reconstruction"]}
    fit = {"study": "theirs", "fit": "given-far"}
    config = copy.deepcopy(STUDY) | {
        "perturbations": {"latents": sweep | {"directions": ["decoder_active"], "dictionary": fit}},
        "spikes": {"between": {"dictionaries": "theirs", "hook": PRE, "fits": ["given-res-jb", "kmeans-k4-s0"]}},
    }
    used = stages.fits_used(read_study(config), "latents", PRE)["dictionary"]
    assert used[0] == f"dictionaries/theirs/{PRE}/real/given-far/sae_weights.safetensors"
    config["perturbations"]["latents"]["dictionary"]["fit"] = "given-fa"
    with pytest.raises(
        StudyError, match=r"'given-fa' is not a sparse autoencoder of `dictionaries\.theirs`.*did you mean"
    ):
        read_study(config)


def test_a_local_folder_that_is_gone_is_not_asked_for_once_it_was_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read = tmp_path / "dictionaries" / "theirs" / PRE / "real" / "given-res-jb" / "cfg.json.json"
    read.parent.mkdir(parents=True)
    read.write_text("{}")
    assert stages.given_folders(read_study(STUDY), tmp_path) == []
    (tmp_path / "saes" / PRE).mkdir(parents=True)
    assert [folder for _, folder, _ in stages.given_folders(read_study(STUDY), tmp_path)] == [f"saes/{PRE}"]
