"""Sparse autoencoders that others trained: from a folder in the format of SAELens, local or on the hub, into a study."""

from __future__ import annotations

import glob
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actspace import sources
from actspace.dictionaries import base, layout
from actspace.errors import StudyError

log = logging.getLogger(__name__)


def load(folder: Path, d_model: int, hook: str) -> base.SAE:
    """Read an SAE that is to be used at a hook point of a model of width d_model.

    Raises
    ------
    StudyError
        As `layout.check` and `base.load`: if it is no SAE that is read, or not one for this place.
    """
    cfg = layout.check(folder, d_model, hook)
    if not cfg["metadata"].get("hook_name"):
        log.warning("%s does not say which hook point it was made for; it is used at %s", folder, hook)
    found = base.load(folder)
    if not isinstance(found, base.SAE):
        raise StudyError(f"{folder}: holds a {found.family} dictionary, which is no sparse autoencoder; name another")
    return found


def pinned(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return an SAE's settings with the commit that its revision stands for. Warns and raises as `sources.resolve`."""
    if settings["repo"] is None:
        return dict(settings)
    return {**settings, "revision": sources.resolve(settings["repo"], settings["revision"])}


def locate(folder: str, repo: str | None = None, revision: str | None = None) -> Path:
    """Return the folder of an SAE; one of a repository on the hub is brought into the local cache first.

    Only its `cfg.json` and `sae_weights.safetensors` are fetched.

    Parameters
    ----------
    folder : str
        Local path if there is no repo, else a path inside it; `.` is the repository itself.
    repo, revision : str or None
        "owner/name", and a commit, tag or branch of it.

    Raises
    ------
    StudyError
        If the hub cannot be reached and the cache lacks the files, or the repository, the revision or one of the files
        does not exist.
    """
    if repo is None or revision is None:
        return Path(folder)
    inside = folder.strip("/")
    prefix = "" if inside in ("", ".") else f"{inside}/"
    commit, names = sources.hub_files(repo, revision, f"{glob.escape(prefix)}*", "model")
    layout.check_names(f"'{inside}' of '{repo}' at '{revision}'", [name.removeprefix(prefix) for name in names])
    paths = [sources.hub_file(repo, commit, prefix + name, "model") for name in (layout.CONFIG, layout.WEIGHTS)]
    return paths[0].parent
