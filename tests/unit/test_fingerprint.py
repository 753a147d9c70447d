from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from actspace import fingerprint

SCRIPT = """
from actspace import outer
from actspace.sub import inner

def main(job, factor=2):
    return outer.double(job) * factor + inner.VALUE
"""
PACKAGE = {
    "__init__.py": '__version__ = "0.1"\n',
    "config/__init__.py": "",
    "config/study.py": "DEFAULT = 1\n",
    "outer.py": "from actspace.deep import SIZE\n\ndef double(x):\n    return SIZE * x\n",
    "deep.py": "import math\n\nSIZE = 2\n",
    "lonely.py": "UNUSED = 1\n",
    "sub/__init__.py": "HELLO = 1\n",
    "sub/inner.py": 'import actspace.config.study as config\n\nVALUE = 3\nPAGE = "page.html.j2"\n',
    "sub/other.py": "VALUE = 4\n",
    "sub/page.html.j2": "<p>{{ text }}</p>\n",
}

# What Pythons have parsed in different ways, or could: format specifications, new characters, new empty fields.
GOLDEN_SOURCE = r'''
"""Words."""
from __future__ import annotations
import a.b as c
X: int = 3
Y = f"a{X!r:>{10}}b" "c" f"{X=}" f"{{brace}} {X:{X}.{X}}" f"{X:}" rf"\d{X:%Y-%m}"
Z = 1e400, 1e-5, 1j, 0x10, 10**20, ..., b"\xff", "\u00e9\U0001fae8\u0378", None, True, u"u", -1, .1 + .2
@deco(1)
class A(B, metaclass=M):
    """Words."""
    async def f(self, x, /, y: int = 2, *args: int, z, w=None, **kw) -> int:
        """Words."""
        async with x as y, z: return {**kw, "a": 1, **{}}, lambda *a, k=1: (yield)
def empty():
    "Words."
match p:
    case {"a": [1, *_, None], **rest} if rest: pass
    case A(x=1) | -1: a[1:2, ::3] += 1
try: print(*a, **b, sep="")
except* ValueError as e: raise X from e
while (n := next(i)): break
else: del a.b, c[0]
'''


def build(folder: Path, script: str = SCRIPT, files: dict[str, str] | None = None) -> str:
    """Write a script and a package, with some of its files changed, and fingerprint it."""
    for name, text in {**PACKAGE, **(files or {})}.items():
        (folder / "actspace" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "actspace" / name).write_text(text)
    (folder / "script.py").write_text(script)
    return fingerprint.of_script(folder / "script.py", folder / "actspace")


@pytest.fixture
def same(tmp_path):
    """Whether a change leaves the fingerprint as it is."""
    before = build(tmp_path / "before")

    def unchanged(script: str = SCRIPT, **files: str) -> bool:
        return build(tmp_path / "after", script, files) == before

    return unchanged


def test_where_the_repository_lies_changes_nothing(same):
    assert same()


def test_comments_docstrings_and_formatting_change_nothing(same):
    script = '''"""What it does."""
from actspace import (outer)  # a comment


from actspace.sub import inner
def main(job,
         factor = 0x2):
    """One more."""

    return ((outer . double(job)) * factor) + inner.VALUE'''
    outer = '"""A module."""\n' + PACKAGE["outer.py"].replace("    return", "    # why\n    return")
    assert same(script, **{"outer.py": outer})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("factor=2", "factor=3"),
        ("factor=2", "factor=2.0"),
        ("* factor", "+ factor"),
        ("factor + inner.VALUE", "(factor + inner.VALUE)"),
        ("def main", "@cached\ndef main"),
        ("def main", "def helper():\n    pass\n\ndef main"),
        ("    return", "    'not'; 'a docstring'\n    return"),
        ("job, factor=2", "factor, job=2"),
    ],
)
def test_a_change_of_the_script_counts(same, old, new):
    assert old in SCRIPT
    assert not same(SCRIPT.replace(old, new))


@pytest.mark.parametrize("file", ["outer.py", "deep.py", "sub/__init__.py", "sub/inner.py"])
def test_a_change_of_a_module_that_is_imported_counts_however_far_away(same, file):
    assert not same(**{file: PACKAGE[file] + "MORE = 1\n"})


@pytest.mark.parametrize("file", ["lonely.py", "sub/other.py", "config/study.py", "__init__.py"])
def test_what_is_not_imported_and_config_and_version_do_not_count(same, file):
    assert same(**{file: PACKAGE[file] + "MORE = 1\n"})


def test_templates_beside_a_module_count(same):
    assert not same(**{"sub/page.html.j2": "<b>{{ text }}</b>\n"})


def test_files_elsewhere_do_not_count(tmp_path):
    elsewhere = tmp_path / "data.txt"
    elsewhere.write_text("one")
    (tmp_path / "package").mkdir()
    script = tmp_path / "script.py"
    script.write_text(f"open({str(elsewhere)!r})\n")
    before = fingerprint.of_script(script, tmp_path / "package")
    elsewhere.write_text("two")
    fingerprint._read.cache_clear()
    assert fingerprint.of_script(script, tmp_path / "package") == before


@pytest.mark.parametrize(
    "line", ["import actspace.sub.inner", "import actspace.sub.inner as i", "from actspace.sub.inner import VALUE"]
)
def test_every_way_to_import_a_module_is_followed(tmp_path, line):
    build(tmp_path, f"def late():\n    {line}\n")
    found = fingerprint.modules_of(tmp_path / "script.py", tmp_path / "actspace")
    assert {path.relative_to(tmp_path / "actspace").as_posix() for path in found} == {"sub/__init__.py", "sub/inner.py"}


def test_modules_that_import_each_other_are_no_trouble(tmp_path):
    circle = {"outer.py": "from actspace import deep\n", "deep.py": "from actspace import outer\n"}
    assert len(build(tmp_path, "from actspace import outer\n", circle)) == 16


def test_relative_imports_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"outer.py: line 3: write relative imports in full"):
        build(tmp_path, files={"outer.py": "import math\n\nfrom . import deep\n"})


def test_an_edit_is_seen_by_a_running_process(tmp_path):
    before = build(tmp_path)
    assert build(tmp_path, files={"deep.py": "SIZE = 3  # longer\n"}) != before
    assert build(tmp_path) == before


def test_every_supported_python_gives_the_same():
    serial = fingerprint.serialise(ast.parse(GOLDEN_SOURCE))
    assert (
        hashlib.sha256(serial.encode()).hexdigest()
        == "84f073131fd8e8c3909286c21ebc418cbf04274ecd3d2679c2a7222c175345b6"
    )


def test_empty_texts_that_python_3_12_puts_into_format_specifications_do_not_count():
    specification = ast.JoinedStr([ast.Constant(""), ast.Constant(".2f"), ast.Constant("")])
    assert fingerprint.serialise(specification) == fingerprint.serialise(ast.JoinedStr([ast.Constant(".2f")]))


def test_our_own_scripts_are_followed_without_the_parser_of_the_config():
    script = Path(fingerprint.__file__).parents[1] / "scripts" / "kmeans.py"
    names = {path.relative_to(fingerprint.PACKAGE).as_posix() for path in fingerprint.modules_of(script)}
    assert {"provenance.py", "activations/store.py", "dictionaries/kmeans.py", "dictionaries/__init__.py"} <= names
    assert not {"__init__.py", "models.py"} & names
    assert not any(name.startswith("config/") for name in names)


def test_fingerprints_need_the_standard_library_alone():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from actspace import fingerprint; print('numpy' in sys.modules)"
    )
    command = [sys.executable, "-S", "-c", code, str(fingerprint.PACKAGE.parent)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"
