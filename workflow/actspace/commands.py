"""Commands of the package, as users type them in the folder of the workflow, where it need not be installed."""

from __future__ import annotations


def line(module: str, *arguments: object) -> str:
    """Return the line that runs a module of the package."""
    return " ".join([f"PYTHONPATH=workflow python -m actspace.{module}", *map(str, arguments)])
