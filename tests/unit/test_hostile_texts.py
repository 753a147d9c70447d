"""Corpora and files of statements that nobody meant to write: each is read, or refused in one line that names the file; nothing hangs."""

from __future__ import annotations

import gzip
import io
import json
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import checkpoints
from actspace import corpora, tokens
from actspace.errors import StudyError
from actspace.probes import statements
from planning import refusal

FORMATS = ("lines", "text", "jsonl", "doc", "parquet", "auto")
PIECES = [
    *(
        b"",
        b"\n",
        b"\r\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\x1f\x8b\x08",
        b"PAR1",
        b"a b",
        "é\u2028".encode(),
    ),
    *(
        b"<doc>",
        b'<doc id="1">',
        b"</doc>",
        b"<doc",
        b"&amp;",
        b"&#xD800;",
        b"&#0;",
        b'{"text": "a"}',
        b'{"text": null}',
        b'{"text": 1}',
        b'{"text": "\\ud800"}',
    ),
    *(
        b"{",
        b"}",
        b"[" * 2000,
        b"9" * 5000,
        b'"',
        b",",
        b"true",
        b"=1+1",
        b"statement,label\n",
        b"a,1\n",
        b"b,0\n",
        b'"a\nb",1\n',
        b"statement,statement\n",
    ),
    *(
        b"statement,label,entity\n",
        b"The city of A is in B.,1\n",
        b"c,maybe\n",
        b"label",
        b"The city of A is in B.,0\n",
    ),
]
BYTES = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=12).map(b"".join)
TRIED = settings(
    max_examples=300, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TOKENIZER = checkpoints.tokenizer()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("texts") / "odd.txt"


def refused_or_read(read: Any, path: Path) -> str:
    """Read a file, or return the one line that refuses it."""
    if said := refusal(read):
        assert said.isprintable(), said
        assert said.startswith(str(path))
        assert len(said) < 2000
    return said


def read(path: Path, form: str = "auto") -> list[corpora.Document]:
    return list(corpora.documents({"kind": "file", "path": str(path), "format": form, "text_column": "text"}))


@TRIED
@given(BYTES, st.sampled_from(FORMATS))
def test_bytes_are_a_corpus_or_refused(file, content, form):
    file.write_bytes(content)
    refused_or_read(lambda: read(file, form), file)


@TRIED
@given(BYTES)
def test_bytes_are_statements_or_refused(file, content):
    file.write_bytes(content)
    refused_or_read(lambda: statements.read_csv(file, "mine"), file)


@TRIED
@given(st.binary(min_size=1, max_size=4), st.integers(0, 2**16))
def test_a_damaged_parquet_file_is_read_or_refused(file, junk, place):
    place %= len(PARQUET)
    file.write_bytes(PARQUET[:place] + junk + PARQUET[place + len(junk) :])
    refused_or_read(lambda: read(file, "parquet"), file)


def parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


PARQUET = parquet(text=["one", None, "", "three" * 50], number=[1, 2, 3, 4])


@pytest.mark.parametrize(
    ("content", "form", "line"),
    [
        (gzip.compress(b"text", mtime=0), "text", "not UTF-8 at byte 1 (line 1)"),
        (b"<doc>\na\n<doc>\nb\n</doc>\n", "doc", "line 3: the <doc> of line 1 is still open"),
        (b"<doc>\na\n", "doc", "the <doc> of line 1 never ends"),
        (b'{"text": ' + b"[" * 100_000, "jsonl", "line 1 is not JSON"),
        (b'{"text": ' + b"9" * 5000 + b"}", "jsonl", "line 1 is not JSON"),
        (b'{"text": "\\ud800"}', "jsonl", "line 1, 'text' holds half a surrogate pair"),
        (PARQUET[:-8], "parquet", "is no sound Parquet file"),
        (parquet(**{"a\nb": ["x"]}), "parquet", "has no column 'text'"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(file, content, form, line):
    file.write_bytes(content)
    assert line in refused_or_read(lambda: read(file, form), file)


def test_two_columns_of_one_name_are_refused(file):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, file)
    assert "has more than one column 'text'" in refused_or_read(lambda: read(file, "parquet"), file)


@pytest.mark.parametrize("form", ["lines", "jsonl", "text", "doc"])
def test_a_huge_line_is_refused_before_it_is_in_memory(file, form):
    """A sparse file of 8 GB: its one line would be in memory whole."""
    with file.open("wb") as stream:
        stream.truncate(8 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refused_or_read(lambda: read(file, form), file)
    file.unlink()
    assert "line 1: a document of more than 64 MB" in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


@pytest.mark.parametrize(("form", "content"), [("text", b"a\n" * 100), ("doc", b"<doc>\n" + b"a\n" * 100)])
def test_a_document_without_an_end_is_refused(file, monkeypatch, form, content):
    monkeypatch.setattr(corpora, "MOST_DOCUMENT_BYTES", 50)
    file.write_bytes(content)
    assert "a document of more than 0 MB" in refused_or_read(lambda: read(file, form), file)


SHAPE = {"length": 4, "bos": False, "per_document": None, "train": 1, "test": 1, "shards": 1, "test_fraction": 0.5}


@pytest.mark.parametrize("texts", [[], [""], [" ", "\n"], ["a"], ["a"] * 1000])
def test_a_corpus_without_tokens_says_so(texts):
    documents = [corpora.Document(str(i), text) for i, text in enumerate(texts)]
    with pytest.raises(
        StudyError, match=rf"\Athe corpus ends after {len(texts)} documents with 0 of 1 train and 0 of 1 test [^\n]+\Z"
    ):
        list(tokens.Stream(documents, TOKENIZER, SHAPE, 0))


@TRIED
@given(st.lists(st.text(max_size=40), max_size=8))
def test_any_unicode_is_tokenized(texts):
    documents = [
        corpora.Document(str(i), text) for i, text in enumerate(texts) if text.isprintable() or text < "\ud800"
    ]
    documents = [document for document in documents if not any("\ud800" <= c <= "\udfff" for c in document.text)]
    said = refusal(lambda: list(tokens.Stream(documents, TOKENIZER, SHAPE, 0)))
    assert not said or "the corpus ends after" in said


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"statement,label,label\na,1,0\n", "two columns are named 'label'"),
        (b"statement,label\na,1\nb,1\n", "there are only true statements"),
        (b"statement,label\n", "there are no statements"),
        (b"statement,label\na,ja\n", "row 1 has the label 'ja'; allowed are 0, 1, true and false"),
        (b'statement,label\na,"1\n2"\n', r"row 1 has the label '1\n2'"),
        (b'"state\nment",label\na,1\n', "no column 'statement'"),
        (b"statement,label\n" + b"a" * (10 << 20) + b",1\nb,0\n", "not well-formed CSV (field larger than field limit"),
        (b"statement,label\n\xff,1\n", "line 2 has a byte that is not UTF-8 (0xff)"),
        (b"statement,label\n  ,1\nb,0\n", "row 1 has an empty statement"),
    ],
)
def test_a_file_of_statements_that_cannot_be_used_is_refused(file, content, line):
    file.write_bytes(content)
    assert line in refused_or_read(lambda: statements.read_csv(file, "mine"), file)


def test_statements_keep_what_other_programs_would_run_or_cut(file):
    file.write_bytes(b'\xef\xbb\xbfstatement,label\n=1+1,1\n"a\nb",0\n@x\0y,1\n')
    assert statements.read_csv(file, "mine")["statement"].tolist() == ["=1+1", "a\nb", "@x\0y"]


def test_json_lines_of_a_number_are_no_documents(file):
    file.write_text(json.dumps(3))
    assert "line 1 holds a int" in refused_or_read(lambda: read(file, "jsonl"), file)
