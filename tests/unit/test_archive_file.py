from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from rocrate.rocrate import ROCrate

from actspace import archive, checkout, crate, manifest, provenance, verify
from actspace.config.study import Study
from actspace.errors import StudyError
from actspace.provenance import MadeBy
from actspace.reading import read_study

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "config").rglob("*.yaml"))
SETTINGS = {
    "study": "small",
    "title": "A small study",
    "model": {"source": {"kind": "hub", "repo": "owner/model", "revision": "abc"}},
    "corpus": {
        "sources": [
            {"kind": "file", "path": "text.txt"},
            {
                "kind": "package",
                "name": "texts",
                "version": "1.2",
                "sha256": 64 * "a",
                "member": "t.txt",
                "format": "lines",
            },
        ]
    },
    "toy": {},
}
MODEL = {
    "source": SETTINGS["model"]["source"],
    "revision": "abcdef",
    "weights": {"model.safetensors": 64 * "b"},
}
NAMES = ("model.json", "tables/toy.csv", "tables/toy.parquet", "figures/toy.svg", "activations/c/train-000.parquet")
MADE_BY = MadeBy("small", "rule", {}, "c0de", {"text.txt": 64 * "c", "results/small/model.json": 64 * "d"})
CODE = {"commit": "0123abc", "changed": True, "sha256": 64 * "e"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A finished small study in a folder with code and config; the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        path, made_by = Path("results/small", name), MADE_BY.adding(name=name)
        provenance.write(path, lambda path, name=name: path.write_text(f"content of {name}"), made_by)
    report = MADE_BY.adding(date="2026-01-31")
    provenance.write("results/small/report.html", lambda path: path.write_text("<html>"), report)
    manifest.write(Path("results/small/manifest.json"), receipts())
    files = {"Snakefile": "rule all:", "workflow/x.py": "1", "config/config.yaml": "study: small", "notes.txt": "mine"}
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    for name in ("results/small/model.json", "results/small/model.json.json"):
        record = Path(".snakemake/metadata", archive._record_name(name))
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text("{}")
    return tmp_path


def receipts() -> list[str]:
    return [f"results/small/{name}.json" for name in (*NAMES, "report.html")]


def study(**settings: object) -> Study:
    return read_study(SETTINGS | {"archive": settings})


def make(name: str = "a.zip", **settings: object) -> Path:
    results = Path("results/small")
    members, left_out = archive.members(study(**settings), results, ["config/config.yaml"], Path())
    run = crate.Run(results, MODEL, manifest.read_receipts(receipts()), CODE, "2026-01-31")

    def describe(files: manifest.Files) -> str:
        return crate.describe(study(**settings), run, files)

    archive.write(Path(name), members, left_out, "2026-01-31", describe)
    return Path(name)


def names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as file:
        return {name for name in file.namelist() if not name.endswith("/")}


# --- what goes in ----------------------------------------------------------------------------------------------------------------------------


def test_an_archive_holds_results_receipts_records_config_code_and_versions(folder):
    packed = names(make())
    assert {"results/small/report.html", "results/small/tables/toy.csv.json", "results/small/manifest.json"} <= packed
    assert {"config/config.yaml", "config/given/1-config.yaml", "Snakefile", "workflow/x.py"} <= packed
    assert {"manifest.json", "ro-crate-metadata.json", "software-versions.txt"} <= packed
    assert len([name for name in packed if name.startswith(".snakemake/metadata/")]) == 2
    assert "notes.txt" not in packed


def test_activations_go_along_if_asked_for_and_their_receipts_always(folder):
    activations = "results/small/activations/c/train-000.parquet"
    assert names(make()) & {activations, f"{activations}.json"} == {f"{activations}.json"}
    assert {activations, f"{activations}.json"} <= names(make(activations=True))


def test_what_was_left_out_is_no_problem_of_the_archive_or_of_what_is_unpacked(folder, tmp_path):
    path = make()
    with zipfile.ZipFile(path) as file:
        file.extractall("unpacked")
    for place in (path, Path("unpacked"), Path("unpacked/results/small")):
        found = verify.check(place)
        assert found.problems == []
        assert [("1 files" in line, "activations" in line) for line in found.remarks] == [(True, True)]


def test_files_that_a_removed_member_left_behind_stay_out(folder):
    Path("results/small/tables/removed.csv").write_text("old")
    assert not [name for name in names(make()) if "removed" in name]


def test_the_config_in_the_archive_means_the_same_study(folder):
    with zipfile.ZipFile(make(activations=True)) as file:
        settings = yaml.safe_load(file.read("config/config.yaml"))
    assert read_study(settings) == study(activations=True)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_can_be_written_out_and_read_back(path):
    given = read_study(yaml.safe_load(path.read_text()))
    again = yaml.safe_load(archive._resolved(given))
    again["compute"] |= given.compute.model_dump(include={"device", "threads"})
    assert read_study(again) == given
    assert list(read_study(again).captures) == list(given.captures)


def test_the_versions_are_pins_of_what_is_installed():
    assert f"pytest=={pytest.__version__}" in archive.installed().splitlines()


# --- the file --------------------------------------------------------------------------------------------------------------------------------


def test_the_same_results_make_the_same_bytes_whatever_the_time_and_the_permissions(folder):
    first = make().read_bytes()
    for path in folder.rglob("*"):
        if path.is_file():
            path.touch()
            path.chmod(0o600)
    assert make("again.zip").read_bytes() == first


def test_a_result_that_was_edited_is_not_archived(folder):
    Path("results/small/tables/toy.csv").write_text("Content of tables/toy.csv")
    with pytest.raises(StudyError, match=r"results/small/tables/toy.csv: changed since it was made; delete it, run"):
        make()


def test_a_result_that_is_missing_is_not_passed_over(folder):
    Path("results/small/tables/toy.csv").unlink()
    with pytest.raises(StudyError, match=r"results/small/tables/toy.csv: missing, but listed in manifest.json; `snake"):
        make()


def test_long_names_of_records_are_cut_as_snakemake_does(tmp_path):
    persistence = pytest.importorskip("snakemake.persistence.file").FilePersistence
    for output in ("results/small/x.parquet", "results/small/" + 300 * "x" + ".parquet"):
        expected = persistence._record_path(object.__new__(_Persistence), str(tmp_path), output)
        assert tmp_path / archive._record_name(output) == Path(expected)


class _Persistence:
    def _fetch_max_len(self, subject: str) -> int:
        return 255


def test_the_date_is_that_of_the_report(folder):
    assert archive.date_of(Path("results/small/report.html")) == "2026-01-31"
    with pytest.raises(StudyError, match=r"results/small/tables/toy.csv: its receipt has no date; delete it, run"):
        archive.date_of(Path("results/small/tables/toy.csv"))


# --- the code --------------------------------------------------------------------------------------------------------------------------------


def git(*command: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *identity, *command], check=True, capture_output=True)


def test_code_is_what_git_tracks_and_new_files_of_the_workflow(folder):
    git("init")
    git("add", "Snakefile", "workflow", "config")
    git("commit", "-m", "x")
    assert checkout.version(folder)["changed"] is False
    Path("workflow/new.py").write_text("2")
    assert checkout.files(folder) == ["Snakefile", "config/config.yaml", "workflow/new.py", "workflow/x.py"]
    found = checkout.version(folder)
    assert found["changed"] is True
    assert len(found["commit"]) == 40


def test_an_edited_file_is_archived_as_it_is_and_the_commit_is_said_to_be_changed(folder):
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    clean = checkout.version(folder)
    Path("workflow/x.py").write_text("2")
    found = checkout.version(folder)
    assert (clean["changed"], found["changed"]) == (False, True)
    assert clean["commit"] == found["commit"]
    assert clean["sha256"] != found["sha256"]


@pytest.mark.parametrize("without_git", [False, True])
def test_without_a_repository_or_git_the_folders_of_a_project_are_code(folder, monkeypatch, without_git):
    if without_git:
        monkeypatch.setenv("PATH", str(folder / "nowhere"))
    assert checkout.files(folder) == ["Snakefile", "config/config.yaml", "workflow/x.py"]
    assert checkout.version(folder)["commit"] is None


# --- metadata --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def described(folder) -> ROCrate:
    path = make(authors=["A. Person", "B. Person"], license="https://creativecommons.org/licenses/by/4.0/")
    with zipfile.ZipFile(path) as file:
        file.extractall("unpacked")
    return ROCrate(Path("unpacked"))


def test_the_root_says_what_when_and_under_which_licence(described):
    root = described.root_dataset
    assert root["name"] == "A small study"
    assert root["datePublished"] == "2026-01-31"
    assert root["license"].id == "https://creativecommons.org/licenses/by/4.0/"
    assert root["conformsTo"].id == "https://w3id.org/ro/wfrun/process/0.5"
    assert [author["name"] for author in root["author"]] == ["A. Person", "B. Person"]
    assert described.metadata["conformsTo"] == "https://w3id.org/ro/crate/1.1"
    assert root["description"]


def test_the_folder_of_all_results_is_no_code(folder):
    files = {"results/.gitkeep": {"sha256": 64 * "0", "size": 0}, "workflow/x.py": {"sha256": 64 * "1", "size": 1}}
    run = crate.Run(Path("results/small"), MODEL, manifest.read_receipts(receipts()), CODE, "2026-01-31")
    found = json.loads(crate.describe(study(), run, files))
    folders = {entity["@id"] for entity in found["@graph"] if entity["@type"] == "Dataset"} - {"./"}
    assert folders == {"workflow/"}


def test_the_run_says_what_it_read_made_and_ran(described):
    run = described.root_dataset["mentions"]
    assert run.type == "CreateAction"
    assert run["endTime"] == "2026-01-31"
    software = run["instrument"]
    assert software.type == "SoftwareApplication"
    assert "commit 0123abc, with changes that were not committed" in software["version"]
    required = {package["name"]: package["version"] for package in software["softwareRequirements"]}
    assert required["torch"] == provenance.installed_versions()["torch"]
    assert {part.id for part in run["result"]} >= {"results/small/report.html", "results/small/tables/toy.parquet"}
    assert [person["name"] for person in run["agent"]] == ["A. Person", "B. Person"]


def test_inputs_have_versions_or_sums(described):
    read = {entity["name"]: entity for entity in described.root_dataset["mentions"]["object"]}
    model = read["model owner/model"]
    assert (model["version"], model["url"]) == ("abcdef", "https://huggingface.co/owner/model/tree/abc")
    assert model["hasPart"]["sha256"] == 64 * "b"
    assert read["text texts/t.txt"]["version"] == "1.2"
    assert read["text texts/t.txt"]["sha256"] == 64 * "a"
    assert read["text.txt"]["sha256"] == 64 * "c"
    assert "results/small/model.json" not in read


def test_files_have_their_sum_size_and_format(described):
    for name, kind in {"report.html": "text/html", "tables/toy.csv": "text/csv"}.items():
        entity, path = described.get(f"results/small/{name}"), Path("results/small", name)
        assert entity["sha256"] == provenance.sha256_of(path)
        assert entity["contentSize"] == str(path.stat().st_size)
        assert entity["encodingFormat"] == kind
    assert all((Path("unpacked") / entity.id).exists() for entity in described.data_entities)


def test_a_study_without_a_licence_says_so(folder):
    with zipfile.ZipFile(make()) as file:
        root = ROCrate(json.loads(file.read("ro-crate-metadata.json"))).root_dataset
    assert root["license"]["name"] == "No licence"


def validator() -> Path | None:
    """An environment with the validator of RO-Crates, if there is one."""
    if find_spec("rocrate_validator"):
        return Path(sys.executable)
    ask = [ROOT / ".venv-peers" / "bin" / "python", "-c", "import rocrate_validator"]
    return ask[0] if ask[0].exists() and not subprocess.run(ask, capture_output=True, check=False).returncode else None


def test_the_validator_accepts_the_metadata(folder):
    python = validator()
    if python is None:
        pytest.skip("needs roc-validator, here or in .venv-peers (`pip install roc-validator==0.13.0`)")
    context = Path(sys.modules["rocrate"].__file__).parent / "data" / "ro-crate.jsonld"
    command = [python, ROOT / "tests" / "peers" / "validate_crate.py", make().absolute(), context]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
