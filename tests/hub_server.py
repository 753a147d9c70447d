"""A hub on the loopback interface: enough of its HTTP API for huggingface_hub to list and download repositories.

A folder is served as `<root>/<models|datasets>/<owner>/<name>/<revision, URL-quoted>/<files>`. As on the real hub, a
file in Git LFS (weights, Parquet) is answered with a redirect to another host that carries its size and hash, an
unknown repository with 401, a gated repository shows its listing but not its files, and listings come in no order."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub.utils import close_session

PARQUET_BRANCH = "refs/convert/parquet"
LFS_SUFFIXES = {".safetensors", ".parquet", ".bin"}
INFO = re.compile(r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")
TREE = re.compile(r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
FILE = re.compile(r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


class HubServer:
    """Serve a folder of repositories; a context manager that returns itself.

    Parameters
    ----------
    root : Path
        The folder of repositories.
    status : int, optional
        Answer everything with this HTTP status, as a hub in trouble does.
    gated : set of str
        Repositories whose files are refused.
    sends : function of bytes, optional
        What is sent of a file, whose size and hash are listed as they are: other bytes, or not all of them.
    pause_s : float
        Seconds before each answer.

    Attributes
    ----------
    url : str
        The endpoint, for HF_ENDPOINT.
    requests : list of (method, path)
        What was asked, in order.
    """

    def __init__(
        self,
        root: Path,
        status: int | None = None,
        gated: frozenset[str] = frozenset(),
        sends: Callable[[bytes], bytes] = bytes,
        pause_s: float = 0,
    ) -> None:
        self.root, self.status, self.gated, self.sends, self.pause_s = root, status, gated, sends, pause_s
        self.requests: list[tuple[str, str]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        # By another name the same server is another host, where the real hub keeps its large files.
        self.storage_url = f"http://localhost:{self._http.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fetched(self) -> list[str]:
        """Return the names of the large files whose content was sent."""
        return [path.rsplit("/", 1)[1] for method, path in self.requests if method == "GET" and "/storage/" in path]

    def commit(self, kind: str, repo: str, revision: str = "main") -> str:
        """Return the commit of a revision: a hash over its files."""
        folder = self.root / kind / repo / revision.replace("/", "%2F")
        digest = hashlib.sha1(f"{repo} {revision}".encode())
        for path in _files(folder):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        return digest.hexdigest()

    def find(self, kind: str, repo: str, revision: str) -> tuple[Path | None, str]:
        """Return the folder and the commit of a revision given by name or by commit."""
        for folder in (self.root / kind / repo).iterdir():
            commit = self.commit(kind, repo, unquote(folder.name))
            if revision in (unquote(folder.name), commit):
                return folder, commit
        return None, ""


def use_hub(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point huggingface_hub, which reads its environment only when it is imported, at an endpoint and a cache."""
    constants = huggingface_hub.constants
    close_session()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path))
        if self.hub.pause_s:
            time.sleep(self.hub.pause_s)
        if self.hub.status:
            self._refuse(self.hub.status, "", "out of order")
        elif path.startswith("/storage/"):
            self._send_file(self.hub.root / unquote(path.removeprefix("/storage/")))
        elif match := TREE.fullmatch(path) or INFO.fullmatch(path) or FILE.fullmatch(path):
            self._repository(match.re, {key: unquote(value or "") for key, value in match.groupdict().items()})
        else:
            self._refuse(404, "", "no such page")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""

    def _repository(self, route: re.Pattern[str], asked: dict[str, str]) -> None:
        kind, repo = asked["kind"] or "models", asked["repo"]
        if not (self.hub.root / kind / repo).is_dir():
            self._refuse(401, "RepoNotFound", "Invalid username or password.")
            return
        folder, commit = self.hub.find(kind, repo, asked["revision"] or "main")
        if folder is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {asked['revision']}")
        elif route is FILE:
            self._file(folder / asked["file"], commit, repo)
        else:
            names = [path.relative_to(folder).as_posix() for path in _files(folder)]
            info = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in names], "private": False}
            self._send_json(info if route is INFO else [_entry(folder, name) for name in reversed(names)])

    def _file(self, path: Path, commit: str, repo: str) -> None:
        if repo in self.hub.gated:
            self._refuse(403, "GatedRepo", f"Access to model {repo} is restricted.")
        elif not path.is_file():
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif path.suffix in LFS_SUFFIXES:
            where = f"{self.hub.storage_url}/storage/{path.relative_to(self.hub.root).as_posix().replace('%', '%25')}"
            linked = {"X-Linked-Size": str(path.stat().st_size), "X-Linked-ETag": f'"{_sha256(path)}"'}
            self._send(b"", 302, {"Location": where, "X-Repo-Commit": commit, **linked})
        else:
            self._send_file(path, {"X-Repo-Commit": commit, "ETag": f'"{_git_oid(path)}"'})

    def _send_file(self, path: Path, headers: dict[str, str] | None = None) -> None:
        self._send(
            self.hub.sends(path.read_bytes()), 200, {**(headers or {}), "Content-Length": str(path.stat().st_size)}
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(b"", status, {"X-Error-Code": code, "X-Error-Message": message})

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), 200, {"Content-Type": "application/json"})

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, name: str) -> dict[str, Any]:
    """Describe a file as the hub's tree listing does."""
    path = folder / name
    size = path.stat().st_size
    entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": _git_oid(path)}
    if path.suffix in LFS_SUFFIXES:
        entry["lfs"] = {"oid": _sha256(path), "size": size, "pointerSize": 134}
    return entry


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git_oid(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
