"""What a config may be made of, before any key of it is looked at.

YAML holds more than a study can use: dates and bytes, keys that are no words, text that no file can hold, a small file that stands for
billions of values through its aliases. Whatever checks or shows such a value could crash or run out of memory, so it is refused first.

Snakemake reads config files itself, with PyYAML's FullLoader; `check_file` reads them beforehand in the same way, for a clear line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from actspace.errors import StudyError

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000
DEEPEST = 20
LONGEST_KEY = 200
MOST_BITS = 63


class _Loader(yaml.FullLoader):
    """Snakemake's loader, but for keys that are there twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def check_file(path: Path) -> None:
    """Refuse a config file that cannot be read, or holds what no config may hold; an absent one is left to Snakemake.

    Raises
    ------
    StudyError
        In one line, with the line of the file where it is known.
    """
    if not path.is_file():
        return
    if (size := path.stat().st_size) > MOST_BYTES:
        raise StudyError(
            f"{path}: {size:,} bytes; a config has {MOST_BYTES:,} at most, so name large files by their paths"
        )
    try:
        content = _parsed(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8 text") from None
    except yaml.YAMLError as error:
        raise StudyError(
            f"{path}: {_place(error)}; correct it (indent with spaces, quote special characters)"
        ) from None
    except (ValueError, OverflowError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise StudyError(f"{path}: no sound YAML ({reason}); correct it, or quote what is text") from None
    if content is None:
        raise StudyError(
            f"{path}: the file is empty; a config has at least `study` and `model`, or the keys to override"
        )
    check(content, str(path))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return yaml.load(text, Loader=_Loader)


def _place(error: yaml.YAMLError) -> str:
    """Say in one line what is wrong with YAML, and in which line it is."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    said = " ".join(str(problem or error).split())[:150]
    printable = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in said)
    return f"line {mark.line + 1}: {printable}" if mark else printable


def check(config: Any, name: str) -> None:
    """Refuse a config, as read from YAML, that holds other than text, numbers, truth values, lists and mappings with words as keys.

    Parameters
    ----------
    config : what was read
    name : of the file, for the message

    Raises
    ------
    StudyError
        In one line, with the place of the first such value; or if values are too many, or nested too deeply.
    """
    if not isinstance(config, dict):
        raise StudyError(f"{name}: a config is a mapping of keys, found a {type(config).__name__}")
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), config)]
    seen = 0
    while waiting:
        keys, value = waiting.pop()
        seen += 1
        trouble = (
            f"more than {MOST_VALUES:,} values; are its aliases meant so?" if seen > MOST_VALUES else _trouble(value)
        )
        trouble = f"nested more than {DEEPEST} deep" if len(keys) > DEEPEST else trouble
        if trouble:
            raise StudyError(f"{name}: {_where(keys)}{trouble}")
        waiting += [((*keys, key), inside) for key, inside in _inside(value)]


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from reversed(value.items())
    elif isinstance(value, list):
        yield from zip(range(len(value) - 1, -1, -1), reversed(value), strict=True)


def _where(keys: tuple[Any, ...]) -> str:
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys[:DEEPEST]).lstrip(".")
    return f"{path}: " if path else ""


def _trouble(value: Any) -> str:
    """Say what is wrong with one value, or with the keys of a mapping; nothing if it may stand in a config."""
    if isinstance(value, dict):
        return next(filter(None, map(_trouble_of_key, value)), "")
    if isinstance(value, str):
        return _trouble_of_text(value)
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return f"a whole number of {value.bit_length()} bits; give one below 2^{MOST_BITS}"
    known = value is None or isinstance(value, int | float | list)
    return "" if known else f"found a {type(value).__name__}, which no key takes; quote it if it is text"


def _trouble_of_key(key: Any) -> str:
    if not isinstance(key, str):
        return f"a key is a {type(key).__name__}, and keys are words; quote it if it is one"
    if len(key) > LONGEST_KEY:
        return f"a key of {len(key)} characters ({key[:20]!a}...); they have {LONGEST_KEY} at most"
    return "" if key.isprintable() else f"the key {key!a} holds what cannot be printed; write it anew"


def _trouble_of_text(text: str) -> str:
    if "\0" in text:
        return "the text holds a NUL character; write it anew"
    surrogate = any("\ud800" <= character <= "\udfff" for character in text)
    return "the text holds half a surrogate pair, which no file can hold; write it anew" if surrogate else ""
