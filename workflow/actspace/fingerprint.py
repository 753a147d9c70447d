"""Fingerprints of code: what a script and every module of the package that it imports, directly or not, would do.

Taken from the syntax tree, so comments, docstrings and formatting change nothing, and serialised here rather than by `ast.dump`, whose text
differs between versions of Python. The folders `config` and `stages` are left out: what a stage uses of the config is in its `cfg`; so is the
package's own `__init__.py`, which holds its version. Templates that a module reads are part of it: a string that names a file beside the
module. Uses the standard library alone, because every remote job parses the Snakefile again."""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent
LEFT_OUT = ("config", "stages", "__init__.py")
TEMPLATE = re.compile(r"[\w-]+([./][\w-]+)+", re.ASCII)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def of_script(script: Path, package: Path = PACKAGE) -> str:
    """Return the fingerprint, 16 hex digits, of a script and all that it imports from the package."""
    files = {script.resolve(), *modules_of(script, package)}
    modules = [_read(file, _stamp(file), package) for file in files]
    parts = sorted(f"{module.name}={module.digest}" for module in modules)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def modules_of(script: Path, package: Path = PACKAGE) -> set[Path]:
    """Return the files of the package that a script imports, directly or not."""
    found: set[Path] = set()
    waiting = [script.resolve()]
    while waiting:
        file = waiting.pop()
        new = _read(file, _stamp(file), package).imports - found
        found |= new
        waiting += new
    return found


def serialise(node: ast.AST | list | object) -> str:
    """Write a syntax tree as text: kinds, names and values, without positions, docstrings or empty fields."""
    if isinstance(node, list):
        return "[" + ",".join(serialise(item) for item in node) + "]"
    if not isinstance(node, ast.AST):
        return ascii(node)  # which characters `repr` leaves as they are depends on Python's Unicode tables
    fields = {
        name: value
        for name, value in ast.iter_fields(node)
        if name not in ("ctx", "type_comment", "kind", "type_ignores")
    }
    if isinstance(node, DOCUMENTED):
        fields["body"] = _without_docstring(node.body)
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some format specifications with an empty text
        fields["values"] = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    # Empty fields are skipped: later Pythons add new ones (type_params), and these are empty in code that every version can read.
    inside = (f"{name}={serialise(value)}" for name, value in fields.items() if value is not None and value != [])
    return f"{type(node).__name__}({','.join(inside)})"


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if is_text else body


def _stamp(file: Path) -> tuple[int, int]:
    """Tell versions of a file apart, for the caches."""
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size


class Module(NamedTuple):
    """What is known of one file: its name in the package, the digest of its code and templates, the files that it imports itself."""

    name: str
    digest: str
    imports: frozenset[Path]


@cache
def _read(file: Path, _version: tuple[int, int], package: Path) -> Module:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    digest = hashlib.sha256(serialise(tree).encode())
    for template in sorted(_templates(file, nodes)):
        digest.update(template.name.encode() + template.read_bytes())
    name = file.relative_to(package).as_posix() if file.is_relative_to(package) else file.name
    return Module(name, digest.hexdigest(), _imports(file, nodes, package))


def _templates(file: Path, nodes: list[ast.AST]) -> Iterator[Path]:
    names = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for name in names:
        if len(name) < 100 and TEMPLATE.fullmatch(name) and (file.parent / name).is_file():
            yield file.parent / name


def _imports(file: Path, nodes: list[ast.AST], package: Path) -> frozenset[Path]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise ValueError(
                f"{file}: line {node.lineno}: write relative imports in full; fingerprints follow absolute ones"
            )
    found = {path for name in names for path in _files_of(name, package)}
    return frozenset(path for path in found if path.relative_to(package).parts[0] not in LEFT_OUT)


def _files_of(name: str, package: Path) -> Iterator[Path]:
    """Yield the file of a module of the package, and the __init__.py of each package around it, which run with it."""
    parts = name.split(".")
    if parts[0] != package.name:
        return
    for end in range(1, len(parts) + 1):
        place = package.joinpath(*parts[1:end])
        if (place / "__init__.py").is_file():
            yield place / "__init__.py"
        elif place.with_suffix(".py").is_file() and end > 1:
            yield place.with_suffix(".py")
