"""Documents from hub datasets, local files and texts inside pip packages, streamed one at a time.

Source: Parquet and JSON lines as data sets publish them; `<doc>` wrapped extracts as WikiExtractor writes them."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from actspace import sources
from actspace.errors import StudyError

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "text"}
ROWS_PER_BATCH = 256
MOST_DOCUMENT_BYTES = 64 << 20
"""A longer line or document is refused: it is held in memory whole, and is hardly text."""

_DOC_START = re.compile(r"<doc(\s.*)?>\s*$")
_DOC_ID = re.compile(r'\sid="([^"]*)"')
_Record = tuple[str | None, str]


class Document(NamedTuple):
    """One text and its name, "source:position", with the text's own id behind it where it has one."""

    id: str
    text: str


def documents(source: Mapping[str, Any], wheel: Path | None = None, index: int = 0) -> Iterator[Document]:
    """Read the documents of one source, one at a time; empty ones are left out.

    Parameters
    ----------
    source : mapping
        `kind` is "hub" (`repo`, `revision`, `files`: a glob, `text_column`), "file" (`path`, `format`, `text_column`,
        `sha256`) or "package" (`member`, `format`, `text_column`). Formats: "jsonl" and "parquet" (one document a
        row), "lines" (one a line), "text" (documents are separated by blank lines), "doc" (`<doc id=...>` to `</doc>`),
        "auto" (by the file's name).
    wheel : Path
        For "package": the wheel, fetched before.
    index : int
        The source's place in the list of sources; ids begin with it.

    Yields
    ------
    Document
        Its position counts the empty ones too, so that ids stay when a text is emptied. Hub files are downloaded
        one by one, when the reader gets there.

    Raises
    ------
    StudyError
        If a file, column or format is not what the source says; the message names the file and the place in it.
    """
    for position, (own_id, text) in enumerate(_records(source, wheel)):
        if text.strip():
            name = f"{index}:{position}" if own_id is None else f"{index}:{position}:{own_id}"
            yield Document(name, text)


def chained(list_of_sources: Sequence[Mapping[str, Any]], wheels: Mapping[str, Path]) -> Iterator[Document]:
    """Read several sources one after the other; `wheels` maps packages, as "name==version", to their wheels."""
    for index, source in enumerate(list_of_sources):
        wheel = wheels.get(f"{source['name']}=={source['version']}") if source["kind"] == "package" else None
        yield from documents(source, wheel, index)


def pinned(list_of_sources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return sources with the commits that the revisions of hub data sets stand for. Warns and raises as `sources.resolve`."""
    return [
        {**source, "revision": sources.resolve(source["repo"], source["revision"], "dataset")}
        if source["kind"] == "hub"
        else dict(source)
        for source in list_of_sources
    ]


def split_of(text: str, test_fraction: float, seed: int) -> Literal["train", "test"]:
    """Assign a document to a split by a hash of its text: copies of one text never straddle the splits.

    The split of a text depends on nothing else, neither on its place nor on the other documents.
    """
    key = seed.to_bytes(8, "little")
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=key).digest()
    return "test" if int.from_bytes(digest, "little") < test_fraction * 2**64 else "train"


def _records(source: Mapping[str, Any], wheel: Path | None) -> Iterator[_Record]:
    """Yield (own id or None, text) for every record of a source."""
    if source["kind"] == "hub":
        commit, names = sources.hub_files(source["repo"], source["revision"], source["files"])
        for name in names:
            path = sources.hub_file(source["repo"], commit, name)
            yield from _read(path.open("rb"), f"{source['repo']}/{name}", source)
    elif source["kind"] == "file":
        path = Path(source["path"])
        if not path.is_file():
            raise StudyError(f"corpus file {path} does not exist or is no file; check its path")
        if source.get("sha256"):
            sources.check_sha256(path, source["sha256"], "corpus file")
        yield from _read(path.open("rb"), str(path), source)
    elif source["kind"] == "package" and wheel is not None:
        where = f"{source['name']}=={source['version']}:{source['member']}"
        yield from _read(sources.open_member(wheel, source["member"]), where, source)
    else:
        raise StudyError(f"corpus source {dict(source)}: unknown kind, or a package without its wheel")


def _read(opened: AbstractContextManager[IO[bytes]], where: str, source: Mapping[str, Any]) -> Iterator[_Record]:
    """Yield the records of one open file, closing it at the end."""
    wanted = source.get("format", "auto")
    with opened as stream:
        reader = _READERS.get(SUFFIXES.get(Path(where).suffix.lower(), "") if wanted == "auto" else wanted)
        if reader is None:
            raise StudyError(f"{where}: cannot read it as '{wanted}'; set its format to one of {sorted(_READERS)}")
        yield from reader(stream, where, source.get("text_column", "text"))


def _numbered_lines(stream: IO[bytes], where: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end); lines end at newline characters only."""
    offset = 0
    for number, raw in enumerate(iter(lambda: stream.readline(MOST_DOCUMENT_BYTES + 1), b""), start=1):
        _check_size(len(raw), f"{where}: line {number}")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            # utf-8-sig counts from behind the mark, where it found one.
            mark = 3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
            raise StudyError(
                f"{where}: not UTF-8 at byte {offset + mark + error.start} (line {number}); convert the file to UTF-8"
            ) from error
        offset += len(raw)
        yield number, line.rstrip("\r\n")


def _check_size(size: int, place: str) -> None:
    if size > MOST_DOCUMENT_BYTES:
        raise StudyError(
            f"{place}: a document of more than {MOST_DOCUMENT_BYTES >> 20} MB; divide it, or name another format"
        )


def _lines(stream: IO[bytes], where: str, column: str) -> Iterator[_Record]:
    for _, line in _numbered_lines(stream, where):
        yield None, line


def _text(stream: IO[bytes], where: str, column: str) -> Iterator[_Record]:
    """Split at blank lines: one document per file would leave nothing to divide into train and test."""
    lines: list[str] = []
    size = 0
    for number, line in _numbered_lines(stream, where):
        if line.strip():
            lines.append(line)
            size += len(line) + 1
            _check_size(size, f"{where}: line {number}")
        elif lines:
            yield None, "\n".join(lines)
            lines, size = [], 0
    if lines:
        yield None, "\n".join(lines)


def _jsonl(stream: IO[bytes], where: str, column: str) -> Iterator[_Record]:
    for number, line in _numbered_lines(stream, where):
        if not line.strip():
            continue
        place = f"{where}: line {number}"
        try:
            row = json.loads(line)
        except (
            ValueError,
            RecursionError,
        ) as error:  # JSON's own error is a ValueError; so is a number of too many digits
            raise StudyError(f"{place} is not JSON ({error}); one JSON object a line is expected") from error
        if not isinstance(row, dict):
            raise StudyError(f"{place} holds a {type(row).__name__}; one JSON object a line is expected")
        if column not in row:
            raise StudyError(f"{place} has no '{column}'; {_columns(column, row)}")
        yield None, _checked_text(row[column], f"{place}, '{column}'")


def _checked_text(value: object, place: str) -> str:
    """Return a JSON value as text (null is an empty one)."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise StudyError(f"{place} holds a {type(value).__name__}, not text; name another text_column")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise StudyError(f"{place} holds half a surrogate pair, which is no text; repair the line or remove it")
    return value


def _parquet(stream: IO[bytes], where: str, column: str) -> Iterator[_Record]:
    """Read the text column alone, some hundred rows at a time."""
    try:
        table = pq.ParquetFile(stream)
        schema = table.schema_arrow
        if schema.names.count(column) != 1:
            how_many = "no" if column not in schema.names else "more than one"
            raise StudyError(f"{where} has {how_many} column '{column}'; {_columns(column, schema.names)}")
        if not _is_text(schema.field(column).type):
            raise StudyError(f"{where}: column '{column}' holds {schema.field(column).type}, not text; name another")
        for batch in table.iter_batches(batch_size=ROWS_PER_BATCH, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield None, value or ""
    except UnicodeDecodeError as error:
        raise StudyError(f"{where}: column '{column}' is not UTF-8 ({error.reason}); convert the file") from error
    except (pa.ArrowException, OSError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        first = ascii(first)[1:-1]  # it may quote the file's own bytes
        raise StudyError(f"{where} is no sound Parquet file ({first}); fetch it again or check its format") from error


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _columns(wanted: str, found: Sequence[str] | Mapping[str, Any]) -> str:
    """Say which columns there are; packed token ids get a word of their own, for they have lost their documents."""
    names = list(found)
    if "input_ids" in names:
        return f"it has {names}: text is needed, token ids packed by somebody else have lost their documents"
    return f"it has {names}; {sources.nearest(wanted, names)}"


def _wiki(stream: IO[bytes], where: str, column: str) -> Iterator[_Record]:
    """Read `<doc ...>` blocks: tags on lines of their own, entities such as `&amp;` replaced by their characters."""
    own_id: str | None = None
    opened_at, size, lines = 0, 0, list[str]()
    for number, line in _numbered_lines(stream, where):
        if _DOC_START.match(line):
            if opened_at:
                raise StudyError(f"{where}: line {number}: the <doc> of line {opened_at} is still open; add its </doc>")
            found = _DOC_ID.search(line)
            own_id, opened_at, size, lines = found[1] if found else None, number, 0, []
        elif opened_at and line.strip() == "</doc>":
            yield own_id, html.unescape("\n".join(lines)).strip()
            opened_at = 0
        elif opened_at:
            lines.append(line)
            size += len(line) + 1
            _check_size(size, f"{where}: line {number}")
        elif line.strip():
            raise StudyError(f"{where}: line {number} is outside of <doc>...</doc>; is 'doc' the right format?")
    if opened_at:
        raise StudyError(f"{where}: the <doc> of line {opened_at} never ends; the file may be cut off")


_READERS: dict[str, Callable[[IO[bytes], str, str], Iterator[_Record]]] = {
    "doc": _wiki,
    "jsonl": _jsonl,
    "lines": _lines,
    "parquet": _parquet,
    "text": _text,
}
