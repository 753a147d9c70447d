"""The workflow's code as it lies on the disk: its files, and the commit that they are of.

Also where git is missing and where the folder is no repository: then the folders that a project has are listed, and the commit is unknown."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""The folder of the code that runs."""
PARTS = (
    *("Snakefile", "workflow", "profiles", "envs", "config", "tests", "docs", "Makefile", "pyproject.toml"),
    *("requirements.txt", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"),
)
"""What is code where no repository says so; results, downloads, models and texts lie beside it."""
NEW_CODE = ("Snakefile", "workflow")
"""Where a file counts that git does not track yet: the workflow may need it."""


def files(root: Path = ROOT) -> list[str]:
    """List the files of the code, relative to `root`, in alphabetical order."""
    tracked = _listed(root)
    names = tracked + _listed(root, "--others", "--exclude-standard", "--", *NEW_CODE) if tracked else _walked(root)
    return sorted({name for name in names if (root / name).is_file()})


def version(root: Path = ROOT) -> dict[str, Any]:
    """Say which code this is.

    Returns
    -------
    dict of `commit` (None where there is no repository), `changed` (whether something differs from the commit), and `sha256` of all files
    """
    digest = hashlib.sha256()
    for name in files(root):
        content = hashlib.sha256((root / name).read_bytes()).hexdigest()
        digest.update(f"{content}  {name}\n".encode())
    commit = _git(root, "rev-parse", "HEAD") if _listed(root) else None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".")
    new = _listed(root, "--others", "--exclude-standard", "--", *NEW_CODE)
    return {
        "commit": commit.strip() if commit else None,
        "changed": bool(commit and (changed or new)),
        "sha256": digest.hexdigest(),
    }


def _listed(root: Path, *options: str) -> list[str]:
    return [name for name in (_git(root, "ls-files", "-z", *options) or "").split("\0") if name]


def _walked(root: Path) -> list[str]:
    found = [path for part in PARTS for path in (root / part, *(root / part).rglob("*"))]
    names = [path.relative_to(root) for path in found]
    return [
        name.as_posix()
        for name in names
        if "__pycache__" not in name.parts and not any(part.startswith(".") for part in name.parts)
    ]


def _git(root: Path, *command: str) -> str | None:
    """Return what git says, None where it has nothing to say about this folder."""
    try:
        done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
