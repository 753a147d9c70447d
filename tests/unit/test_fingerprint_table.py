"""Every module of the package: an edit changes the fingerprints of exactly the scripts that import it, and a neutral edit of none.

Who imports what is found from the compiled code here, and from the syntax tree in `fingerprint.py`."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Callable
from modulefinder import ModuleFinder
from pathlib import Path
from types import CodeType

import pytest

from actspace import fingerprint

WORKFLOW = fingerprint.PACKAGE.parent
SCRIPTS = sorted(path.name for path in (WORKFLOW / "scripts").glob("*.py"))
MODULES = sorted(path.relative_to(WORKFLOW).as_posix() for path in fingerprint.PACKAGE.rglob("*.py"))
ENTRIES = (
    "rules/common.smk",
    "actspace/compare/__main__.py",
    "actspace/config_docs.py",
    "actspace/upgrades.py",
    "actspace/leftovers.py",
    "actspace/reference_docs.py",
)
"""What users start that is no script of a rule: the workflow itself, and commands."""
OTHER_PYTHONS = [f"python3.{minor}" for minor in range(11, 16) if minor != sys.version_info.minor]
BESIDE = [str(path) for path in Path(sys.base_prefix).parent.glob("*/bin")]
"""Where other Pythons lie if they are installed as this one is."""
PRINT_ALL = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from actspace import fingerprint
print(json.dumps({path.name: fingerprint.of_script(path) for path in sorted(Path(sys.argv[1], "scripts").glob("*.py"))}))
"""


@pytest.fixture(scope="module")
def workflow(tmp_path_factory) -> Path:
    """A copy of scripts and package, to edit."""
    folder = tmp_path_factory.mktemp("fingerprints")
    for name in ("actspace", "scripts", "rules"):
        shutil.copytree(WORKFLOW / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def fingerprints(workflow: Path) -> dict[str, str]:
    return {name: fingerprint.of_script(workflow / "scripts" / name, workflow / "actspace") for name in SCRIPTS}


def imported(code: CodeType) -> set[str]:
    """Name all modules that compiled code imports, or could: what stands behind `from x import` may be a name in x."""
    found: set[str] = set()
    for what, args in ModuleFinder().scan_opcodes(code):
        if what == "absolute_import":
            names, module = args
            found |= {module, *(f"{module}.{name}" for name in names or ())}
    return found.union(*(imported(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def with_packages(names: set[str]) -> set[str]:
    """List the files of the modules that are named, and those of the packages around them, which run first."""
    parts = [name.split(".") for name in names]
    every = {"/".join(part[:end]) for part in parts for end in range(1, len(part) + 1)}
    return {file for name in every for file in (f"{name}.py", f"{name}/__init__.py") if file in MODULES}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Files of the package that each script, module or other entry imports itself, by the compiled code."""
    starts = {f"scripts/{name}" for name in SCRIPTS}
    files = {file: WORKFLOW / file for file in {*MODULES, *starts}}
    direct = {
        file: with_packages(imported(compile(path.read_text(), file, "exec"))) - {file} for file, path in files.items()
    }
    text = (WORKFLOW / "rules" / "common.smk").read_text()
    lines = re.findall(r"^from actspace[^(\n]*(?:\([^)]*\))?", text, re.MULTILINE)
    direct["rules/common.smk"] = with_packages(imported(compile("\n".join(lines), "common.smk", "exec")))
    return direct


def runs(start: str, direct: dict[str, set[str]], without: Callable[[str], bool] = lambda module: False) -> set[str]:
    """Follow the imports of an entry, not through what is left out."""
    found, waiting = {start}, [start]
    while waiting:
        new = {module for module in direct[waiting.pop()] - found if not without(module)}
        found |= new
        waiting += new
    return found


def left_out(module: str) -> bool:
    """What is no part of any fingerprint: its values are in `cfg`, or it is the version."""
    return module.startswith(("actspace/config/", "actspace/stages/")) or module == "actspace/__init__.py"


def test_an_edit_of_a_module_changes_the_scripts_that_import_it_and_no_other(workflow, imports):
    before = fingerprints(workflow)
    uses = {name: runs(f"scripts/{name}", imports, without=left_out) for name in SCRIPTS}
    wrong = {}
    for module in MODULES:
        path = workflow / module
        text = path.read_text()
        path.write_text(text + "\nEDITED = 1\n")
        after = fingerprints(workflow)
        path.write_text(text)
        changed = {name for name in SCRIPTS if before[name] != after[name]}
        expected = {name for name in SCRIPTS if module in uses[name]}
        if changed != expected:
            wrong[module] = changed ^ expected
    assert wrong == {}


def test_every_module_is_run_by_a_rule_or_a_command(imports):
    starts = [f"scripts/{name}" for name in SCRIPTS] + [*ENTRIES]
    assert set(MODULES) == {module for start in starts for module in runs(start, imports)} & set(MODULES)


def test_comments_docstrings_and_formatting_of_any_module_change_no_fingerprint(workflow):
    before = fingerprints(workflow)
    for path in [*(workflow / "actspace").rglob("*.py"), *(workflow / "scripts").glob("*.py")]:
        path.write_text(reformatted(path.read_text()))
    assert fingerprints(workflow) == before


def reformatted(text: str) -> str:
    """Write code in another form: other docstrings, no comments but one of ours, no blank lines, spaces around operators."""
    tree = ast.parse(text)
    docstrings = {
        node.body[0].lineno for node in ast.walk(tree) if isinstance(node, fingerprint.DOCUMENTED) and _has_words(node)
    }
    tokens = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or token.type == tokenize.NL:
            continue
        is_words = token.type == tokenize.STRING and token.start[0] in docstrings
        tokens.append((token.type, "'Other words.'" if is_words else token.string))
    return "# Another comment.\n" + tokenize.untokenize(tokens)


def _has_words(node: ast.AST) -> bool:
    return fingerprint._without_docstring(node.body) is not node.body


@pytest.mark.parametrize("python", OTHER_PYTHONS)
def test_another_python_finds_the_same_fingerprints(python):
    program = shutil.which(python, path=os.pathsep.join([*BESIDE, os.environ["PATH"]]))
    works = program and subprocess.run([program, "--version"], capture_output=True).returncode == 0
    if not works:
        pytest.skip(f"{python} is not installed")
    command = [program, "-S", "-c", PRINT_ALL, str(WORKFLOW)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ""})
    assert json.loads(done.stdout) == {name: fingerprint.of_script(WORKFLOW / "scripts" / name) for name in SCRIPTS}
