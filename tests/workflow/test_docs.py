"""Every command, snippet and link of the documentation, tried on the finished tiny study.

Blocks are run in order, page by page, in a copy of the study's folder: `bash` with Snakemake and make as dry runs, as their
real runs are tested elsewhere; `python` as it stands; `yaml` laid over the embedded study's config, which must be valid. A
comment above a block, `<!-- test: parsed: why -->`, says where less can be tried: then the shell, or Python, parses it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from pages import DOCS, PAGES, ROOT, Snippet, anchors, links, snippets
from snakemake.utils import update_config
from tiny import TinyStudy

from actspace import reference_docs, stages
from actspace.activations import store
from actspace.reading import read_study

PEERS = ROOT / ".venv-peers" / "bin" / "python"
IN_THE_TINY_STUDY = {
    "results/embedded": "results/tiny",
    "dictionaries/layer9": "dictionaries/residual",
    "study: layer9": "study: residual",
    "  layer9:": "  residual:",
    "blocks.9.hook_resid_post": "blocks.0.hook_resid_post",
    "blocks.20.hook_resid_post": "blocks.1.hook_resid_post",
    "topk-n1024-k16-s0": "topk-n48-k4-s0",
    "kmeans-k256-s0": "kmeans-k4-s0",
    "sizes: [16, 64, 256, 1024, 2048]": "sizes: [4, 8, 16]",
}
"""What the embedded study calls something, and the tiny one."""
TYPES = {"int64": "integer", "int32": "integer", "double": "number", "float": "number", "bool": "boolean"}


@pytest.fixture(scope="module")
def folder(finished: TinyStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished study, with programs for the shell: Python, make as a dry run, an environment to activate."""
    copy = tmp_path_factory.mktemp("docs") / "study"
    shutil.copytree(finished.folder, copy, symlinks=True)
    programs = copy / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").touch()
    for name, command in {"python": sys.executable, "make": f"{shutil.which('make')} -C {ROOT} -n"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    return copy


@pytest.fixture
def reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that somebody who follows the documentation works in."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    mpl.use("Agg")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_snippet_works(page: Path, reader: Path):
    scope: dict[str, Any] = {}
    for snippet in snippets(page):
        attempt(snippet, scope)


def attempt(snippet: Snippet, scope: dict[str, Any]) -> None:
    """Try one block in the working directory; `scope` holds the names that Python blocks of the page share."""
    text = in_the_tiny_study(snippet.text)
    match snippet.language, snippet.mark:
        case "bash", "":
            run_in_the_shell(text, snippet)
        case "bash", "parsed":
            run(["bash", "-n", "-c", text], snippet)
        case "python", "":
            exec(compile(text, snippet.place, "exec"), scope)
        case "python", "with saelens":
            compile(text, snippet.place, "exec")
            if PEERS.exists():
                run([str(PEERS), "-c", text], snippet, PYTHONPATH="", HF_HUB_OFFLINE="1")
        case "yaml", "":
            check_settings(snippet)
        case _:
            pytest.fail(f"{snippet.place}: no way to test a block of {snippet.language!r} marked {snippet.mark!r}")


def in_the_tiny_study(text: str) -> str:
    for name, own in IN_THE_TINY_STUDY.items():
        text = text.replace(name, own)
    return text


def run_in_the_shell(text: str, snippet: Snippet) -> None:
    """Run a block, line by line where Snakemake is called: that is planned only."""
    for part in re.split(r"^(snakemake .*\n)", text, flags=re.MULTILINE):
        if part.startswith("snakemake "):
            arguments = tuple(word for word in shlex.split(part, comments=True)[1:] if word != "-n")
            plan(arguments, tuple(Path(word).read_text() for word in arguments if word.endswith(".yaml")), snippet)
        elif part.strip():
            run(["bash", "-e", "-c", part], snippet)


PLANNED: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()


def plan(arguments: tuple[str, ...], configs: tuple[str, ...], snippet: Snippet) -> None:
    """Dry-run Snakemake, once for the same arguments and configs: pages may well repeat a command."""
    if (arguments, configs) not in PLANNED:
        run([sys.executable, "-m", "snakemake", *arguments, "-n", "--nocolor"], snippet)
        PLANNED.add((arguments, configs))


def run(command: list[str], snippet: Snippet, **environment: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, f"{snippet.place}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}"


def check_settings(snippet: Snippet) -> None:
    """Lay a fragment over the config of the embedded study, as a second config file."""
    settings = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    fragment = yaml.safe_load(snippet.text)
    if "source" in fragment.get("model", {}):
        del settings["model"]["source"]  # of another kind, which a second file cannot replace
    update_config(settings, fragment)
    read_study(settings, snippet.place)


def test_fits_and_files_that_snippets_name_are_those_of_the_embedded_study():
    study = read_study(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    fits = stages.fits(study.dictionaries["layer9"])
    hooks = {hook for capture in study.captures.values() for hook in capture.hooks}
    for snippet in (snippet for page in PAGES for snippet in snippets(page)):
        assert not set(re.findall(r"(?:topk|kmeans)-[\w-]+", snippet.text)) - set(fits), snippet.place
        named = re.findall(r"results/embedded/\S+?(blocks\.\d+\.hook_[a-z_]+)", snippet.text)
        assert not set(named) - hooks, snippet.place


def test_the_recipes_without_this_code_read_what_the_store_reads(reader: Path):
    recipes = [s for s in snippets(ROOT / "docs/reference/files.md") if "frombuffer" in s.text]
    assert len(recipes) == 3
    for recipe in recipes:
        scope: dict[str, Any] = {}
        attempt(recipe, scope)
        x = store.read([scope["file"]]).x
        np.testing.assert_array_equal(scope["x"], x.numpy(), recipe.place)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path):
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: no file {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: no heading {target}"


def test_the_index_of_the_documentation_links_every_page():
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in links(index)}
    assert not [page for page in DOCS if page not in linked and page != index]


def test_generated_references_are_as_generated():
    for path, text in reference_docs.render().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make docs`"


def test_every_table_and_column_is_described_and_none_else(finished: TinyStudy):
    schemas = {path.stem: pq.read_schema(path) for path in (finished.results / "tables").glob("*.parquet")}
    described = reference_docs.described_tables()
    assert set(schemas) == set(described)
    for name, schema in schemas.items():
        found = {field.name: type_of(field.type) for field in schema}
        assert {column.name: column.type for column in described[name].columns} == found, name


def type_of(arrow: Any) -> str:
    return TYPES.get(str(arrow), "text")


def test_every_statistic_in_a_table_is_described(finished: TinyStudy):
    for table in reference_docs.described_tables().values():
        for column, values in table.values.items():
            path = finished.results / "tables" / f"{table.name}.parquet"
            found = set(pq.read_table(path, columns=[column])[column].to_pylist())
            described = {value.replace("<effect>", effect) for value in values for effect in ("sqrt_2kl", "l2")}
            assert not found - described, f"{table.name}.{column}"
