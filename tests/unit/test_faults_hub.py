"""Faults of the hub and of what lies in its cache: half a model, other bytes than were promised, slow answers."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

import checkpoints
from actspace import models, sources
from actspace.errors import StudyError
from faults import MADE_UP, change_inside, cut_short
from hub_server import PARQUET_BRANCH, HubServer, use_hub

MODEL, DATASET = "lab/tiny-gpt2", "lab/webtext"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can be loaded, and a data set."""
    root = tmp_path_factory.mktemp("hub")
    checkpoints.make("gpt2", root / "models" / MODEL / "main")
    data = root / "datasets" / DATASET / PARQUET_BRANCH.replace("/", "%2F")
    data.mkdir(parents=True)
    (data / "0.parquet").write_bytes(bytes(range(256)) * 40)
    return root


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[HubServer], None]:
    return lambda hub: use_hub(hub.url, tmp_path / "cache", monkeypatch)


@pytest.fixture
def hub(repositories: Path, connect: Callable[[HubServer], None]) -> Iterator[HubServer]:
    with HubServer(repositories) as server:
        connect(server)
        yield server


def download() -> dict[str, bytes]:
    """Bring the model here as the first job does, and return its files."""
    folder = sources.snapshot(MODEL, "main")
    models.weight_hashes(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def original(repositories: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (repositories / "models" / MODEL / "main").iterdir()}


def remove_what_is_named(line: str) -> None:
    """Do what a line says of a damaged file."""
    Path(re.match(r"(\S+): .* delete it and run again", line)[1]).unlink()


@pytest.mark.parametrize("damage", [cut_short, change_inside])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_model_that_is_damaged_in_the_cache_is_named_and_fetched_again(hub, repositories, name, damage):
    damage((sources.snapshot(MODEL, "main") / name).resolve())
    with pytest.raises(
        StudyError, match=rf"blobs/\w+: {name} has the sum .*, the hub promised .*: delete it"
    ) as caught:
        download()
    remove_what_is_named(str(caught.value))
    assert download() == original(repositories)


def other_bytes(data: bytes) -> bytes:
    return data[:100] + MADE_UP + data[104:]


def test_a_model_of_other_bytes_than_the_hub_lists_is_refused(repositories, connect):
    with HubServer(repositories, sends=other_bytes) as server:
        connect(server)
        with pytest.raises(StudyError, match=r"has the sum .*, the hub promised .* changed on its way: delete it"):
            download()
        server.sends = lambda data: other_bytes(data) if len(data) > 50_000 else data
        while True:  # small files first, one at a time
            with pytest.raises(StudyError) as caught:
                download()
            remove_what_is_named(str(caught.value))
            if "model.safetensors" in str(caught.value):
                break
        server.sends = bytes
        assert download() == original(repositories)


def test_a_data_set_of_other_bytes_than_the_hub_lists_is_refused(repositories, connect):
    with HubServer(repositories, sends=other_bytes) as server:
        connect(server)
        commit = server.commit("datasets", DATASET, PARQUET_BRANCH)
        with pytest.raises(StudyError, match=r"0.parquet has the sum .*, the hub promised") as caught:
            sources.hub_file(DATASET, commit, "0.parquet")
        remove_what_is_named(str(caught.value))
        server.sends = bytes
        assert sources.hub_file(DATASET, commit, "0.parquet").read_bytes() == bytes(range(256)) * 40


def test_a_download_that_breaks_off_is_no_snapshot_and_goes_on(repositories, connect, monkeypatch):
    whole = original(repositories)["model.safetensors"]
    with HubServer(repositories, sends=lambda data: data[:1000] if data == whole else data) as server:
        connect(server)
        monkeypatch.setattr("time.sleep", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            download()
        monkeypatch.undo()
        connect(server)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(StudyError, match=r"has no safetensors weights|no complete copy"):
            download()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        server.sends = bytes
        assert download() == original(repositories)


def stop_after(n: int) -> Callable[[float], None]:
    """Stand in for the pauses of a download that is tried again and again; its user stops it in the last one."""
    pauses = iter(range(n - 1))

    def pause(_seconds: float) -> None:
        if next(pauses, None) is None:
            raise KeyboardInterrupt

    return pause


def test_a_hub_that_answers_slowly_gives_the_same_model(repositories, connect, monkeypatch):
    monkeypatch.setattr(sources, "HUB_TIMEOUT_S", 1.0)
    with HubServer(repositories, pause_s=0.2) as server:
        connect(server)
        assert download() == original(repositories)


@pytest.fixture
def breaking_off() -> Iterator[str]:
    """A server that says how long a file is, and then sends half of it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "34")
            self.end_headers()
            self.wfile.write(b"statement,label\nParis")

        def log_message(self, *_: object) -> None:
            """Keep the output of the tests clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/set.csv"
        server.shutdown()


def test_a_file_of_statements_that_breaks_off_is_no_file(breaking_off, tmp_path):
    with pytest.raises(StudyError, match=r"set.csv: cannot be fetched \(it broke off after 21 of 34 bytes\); check"):
        sources.fetch_file(breaking_off, tmp_path / "set.csv")
