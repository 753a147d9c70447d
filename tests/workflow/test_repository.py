"""Files that must stay in step: the generated schema and docs, the pins."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from actspace import config_docs, fingerprint
from actspace.reading import read_study

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "config").rglob("*.yaml"))


def test_schema_and_readme_are_as_generated():
    schema, readme = config_docs.render()
    assert config_docs.SCHEMA.read_text(encoding="utf-8") == schema, "run `make docs`"
    assert config_docs.README.read_text(encoding="utf-8") == readme, "run `make docs`"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_are_valid_for_the_models_and_for_the_schema_they_link(path: Path):
    text = path.read_text()
    link = re.match(r"# yaml-language-server: \$schema=(\S+)", text)
    assert link
    assert (path.parent / link[1]).resolve() == config_docs.SCHEMA
    settings = yaml.safe_load(text)
    read_study(settings, path.name)
    jsonschema.validate(settings, config_docs.schema())


def test_the_conda_environment_has_the_pins_of_the_lock_file():
    pins = set((ROOT / "requirements.txt").read_text().split())
    listed = next(
        d["pip"]
        for d in yaml.safe_load((ROOT / "envs" / "actspace.yaml").read_text())["dependencies"]
        if isinstance(d, dict)
    )
    assert not [pin for pin in listed if pin not in pins]


def test_the_profiles_for_slurm_differ_in_what_accounting_decides_alone():
    with_it, without = (
        yaml.safe_load((ROOT / "profiles" / name / "profile.yaml").read_text()) for name in ("slurm", "slurm-noacct")
    )
    assert without == with_it | {"slurm-status-command": "squeue", "slurm-no-account": True}


def test_parsing_the_workflow_imports_neither_torch_nor_transformers():
    parsed = {
        name
        for file in ("common.smk", "inputs.smk")
        for name in re.findall(r"from actspace[.\w]* import (.+)", (ROOT / "workflow/rules" / file).read_text())
    }
    modules = {name.strip() for names in parsed for name in names.split(",")}
    places = [ROOT / "workflow/actspace" / f"{name}{end}" for name in modules for end in (".py", "/__init__.py")]
    files = {path for path in places if path.is_file()}
    reached = set().union(*(fingerprint.modules_of(file) for file in files))
    assert not [
        file
        for file in reached | files
        if re.search(r"^(import|from) (torch|transformers|transformer_lens)", file.read_text(), re.MULTILINE)
    ]


FITS = ("kmeans", "kmeans_read_out", "null_dictionary", "random_directions", "pca", "sae")
WITHOUT = ("shards", "latent_tables", "dictionary_tables", "structure", "claims", "figures", "manifest")
STATISTICS = ("perturbation", "optima", "plane", "probe", "causal", "region", "spike")
SETTINGS = {
    **dict.fromkeys(FITS, ("fit",)),
    **dict.fromkeys(WITHOUT, ("no_settings",)),
    **dict.fromkeys((f"{part}_tables" for part in STATISTICS), ("statistics",)),
    "plan": ("model",),
    "model": ("model", "checkpoint"),
    "archive": ("",),
}
"""What scripts use of the config that is not named after them."""


def test_every_rule_has_one_script_and_every_script_a_rule():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    named = re.findall(r'"\.\./scripts/(\w+)\.py"', rules)
    assert sorted(set(named)) == sorted(path.stem for path in (ROOT / "workflow" / "scripts").glob("*.py"))


def test_every_rule_takes_the_settings_and_the_fingerprint_of_its_own_script():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    wired = re.findall(r'params:\n(.*?)script:\s+"\.\./scripts/(\w+)\.py"', rules, re.DOTALL)
    assert len(wired) == rules.count("script:")
    for params, script in wired:
        assert re.findall(r'code=code\("(\w+)"\)', params) == [script]
        (stage,) = re.findall(r'cfg=(?:(?:stage|member)_cfg\(\s*"(\w+)"|archive_cfg)', params)
        assert stage in SETTINGS.get(script, (script,)), script


@pytest.mark.parametrize("path", sorted((ROOT / "workflow" / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_begin_before_they_import_anything_that_imports_torch(path: Path):
    _, first, second, *rest = ast.parse(path.read_text()).body
    assert ast.unparse(first) == "from actspace.jobs import begin"
    assert ast.unparse(second) == "begin(snakemake)"
    assert ast.unparse(rest[-1]) == "main(snakemake)"


def test_beginning_a_job_imports_no_torch():
    found = subprocess.run(
        [sys.executable, "-c", "import sys, actspace.jobs; sys.exit('torch' in sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
        check=False,
    )
    assert found.returncode == 0
