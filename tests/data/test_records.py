"""Records in all formats: rows in are rows out, and each broken file is told in one line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from bothways.data.records import Record, read_records, require
from bothways.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)
ROWS = st.lists(st.fixed_dictionaries({"text": VALUES, "label": VALUES}), min_size=1, max_size=8)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def to_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def to_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def to_tsv(rows: list[dict[str, Any]]) -> bytes:
    """Fields as they are; those that TSV cannot hold lose their tabs and line ends first."""
    cleaned = ["\t".join(re.sub("[\t\n]", " ", row[name]) for name in ("text", "label")) for row in rows]
    return "\n".join(["text\tlabel", *cleaned]).encode()


def to_parquet(rows: list[dict[str, Any]], columns: Sequence[str] = ()) -> bytes:
    table = pyarrow.Table.from_arrays([pyarrow.array([], "string")] * len(columns), list(columns))
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows) if rows else table, sink, row_group_size=3)
    return sink.getvalue().to_pybytes()


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "a.jsonl": to_jsonl,
    "a.jsonl.gz": lambda rows: gzip.compress(to_jsonl(rows)),
    "a.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "a.csv": to_csv,
    "a.tsv": to_tsv,
    "a.parquet": to_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
@given(rows=ROWS)
def test_rows_in_are_rows_out(tmp_path_factory, name, rows):
    path = write(tmp_path_factory.mktemp("rows"), name, WRITERS[name](rows))
    wanted = rows
    if name == "a.tsv":
        wanted = [{key: re.sub("[\t\n]", " ", value) for key, value in row.items()} for row in rows]
    records = list(read_records(path))
    assert [record.fields for record in records] == wanted
    assert all(record.path == str(path) for record in records)


def test_lines_are_where_the_record_begins(tmp_path):
    table = write(tmp_path, "a.csv", 'text,label\n"two\nlines",1\n\nb,2\n')
    assert [(record.line, record.fields["text"]) for record in read_records(table)] == [(2, "two\nlines"), (5, "b")]
    objects = write(tmp_path, "a.jsonl", '\ufeff{"a": 1}\r\n\r\n{"a": 2}')
    assert [record.line for record in read_records(objects)] == [1, 3]
    sentences = write(tmp_path, "a.conll", "-DOCSTART- -X- O O\n\n\nEU NNP B-NP B-ORG\n. . O O\n\nA NN B O\n")
    assert [record.line for record in read_records(sentences)] == [4, 7]
    assert next(iter(read_records(sentences))).fields == {"tokens": ["EU", "."], "tags": ["B-ORG", "O"]}


def test_long_and_odd_text_passes_through(tmp_path):
    odd = "\u2028\x85\x0b" + "长" * 200_000
    for name in ("a.jsonl", "a.csv", "a.tsv", "a.parquet"):
        path = write(tmp_path, name, WRITERS[name]([{"text": odd, "label": "x"}]))
        assert next(iter(read_records(path))).fields["text"] == odd
    lone = write(tmp_path, "lone.jsonl", '{"text": "\\ud800"}')
    assert next(iter(read_records(lone))).fields["text"] == "\ud800"
    lines = write(tmp_path, "a.txt", f"{odd}\n\n  \nb")
    assert [record.fields["text"] for record in read_records(lines)] == [odd, "b"]


def test_conll_columns_and_tokens_that_look_blank(tmp_path):
    path = write(tmp_path, "a.conll", "EU  NNP B-ORG\n\u3000 SP O\n")
    record = next(iter(read_records(path, columns={"tags": "2"})))
    assert record.fields == {"tokens": ["EU", "\u3000"], "tags": ["NNP", "SP"]}
    path = write(tmp_path, "b.conll", " \tO\n我\tO\n")
    assert next(iter(read_records(path))).fields == {"tokens": [" ", "我"], "tags": ["O", "O"]}
    path = write(tmp_path, "c.conll", "我\n\u3000\n们\n")
    assert next(iter(read_records(path))).fields == {"tokens": ["我", "\u3000", "们"]}


def squad(**question: Any) -> dict[str, Any]:
    question = {"id": "q1", "question": "谁？", "answers": [{"text": "他", "answer_start": 0, "id": "1"}]} | question
    return {
        "version": "1",
        "data": [{"title": "t", "paragraphs": [{"context": "他在。", "id": "p", "qas": [question]}]}],
    }


def test_squad(tmp_path):
    path = write(tmp_path, "a.json", json.dumps(squad(is_impossible=False, plausible_answers=[])))
    (record,) = read_records(path)
    assert record.fields == {
        "id": "q1",
        "title": "t",
        "question": "谁？",
        "context": "他在。",
        "answers": {"text": ["他"], "answer_start": [0]},
        "is_impossible": False,
        "plausible_answers": [],
    }
    assert str(record.error("no")) == f"{path}: record 1: no"
    document = squad()
    del document["data"][0]["paragraphs"][0]["qas"][0]["answers"]
    (record,) = read_records(write(tmp_path, "b.json", json.dumps(document)))
    assert "answers" not in record.fields


def test_records_from_python():
    assert [(r.fields, r.path, r.line) for r in read_records(["a.txt", {"text": "b", "x": 1}])] == [
        ({"text": "a.txt"}, "<records>", 1),
        ({"text": "b", "x": 1}, "<records>", 2),
    ]
    assert list(read_records([])) == []
    for bad, message in (
        ({"text": "a"}, "found one object with 'text', wanted a list of records"),
        ([3], "<records>:1: found a whole number, wanted a string or a dict"),
        ([None, "a"], "<records>:1: found null, wanted a string or a dict"),
        (["a", Path("b.txt")], "<records>:2: found a PosixPath"),
        ([{1: "a"}], "a dict whose keys are strings"),
    ):
        with pytest.raises(DataError) as caught:
            list(read_records(bad))  # type: ignore[arg-type]
        assert message in str(caught.value)


def test_several_files_and_a_limit(tmp_path):
    one = write(tmp_path, "a.txt", "1\n2\n")
    two = write(tmp_path, "b.jsonl", '{"text": "3"}\nbroken')
    assert [record.fields["text"] for record in read_records([one, two], limit=3)] == ["1", "2", "3"]
    with pytest.raises(DataError, match=r"missing\.txt: no such file"):
        next(read_records([one, tmp_path / "missing.txt"]))
    with pytest.raises(DataError, match=r"among paths, wanted a pathlib\.Path"):
        next(read_records([one, "b.jsonl"]))  # type: ignore[list-item]


def test_columns_rename_and_may_swap():
    rows = [{"a": 1, "b": 2, "c": 3}]
    assert next(read_records(rows, columns={"text": "a"})).fields == {"text": 1, "b": 2, "c": 3}
    assert next(read_records(rows, columns={"a": "b", "b": "a"})).fields == {"a": 2, "b": 1, "c": 3}
    with pytest.raises(DataError) as caught:
        next(read_records([{"label": "1", "review": "good"}], columns={"text": "reviw"}))
    assert str(caught.value) == (
        "<records>:1: no column 'reviw' (from --columns.text); there are 'review', 'label'; "
        "did you mean --columns.text review?"
    )


BAD: dict[str, tuple[str, str | bytes, list[str]]] = {
    "not json": ("a.jsonl", '{"a": 1}\n{"a": 2,}\n', [":2:", "column 9", "before '}'", "property name"]),
    "cut json": ("a.jsonl", '{"a": 1}\n{"a": ', [":2:", "column 7", "where the line ends"]),
    "python, not json": ("a.jsonl", "{'a': 1}", [":1:", "column 2", "in double quotes"]),
    "two a line": ("a.jsonl", '{"a": 1} {"a": 2}', ["column 10", "extra data"]),
    "a string": ("a.jsonl", '"a"', ["found a string, wanted an object"]),
    "an array": ("a.jsonl", '[{"a": 1}]', ["found a list", "ends in .json"]),
    "nan": ("a.jsonl", '{"label": NaN}', [":1:", "NaN is not JSON"]),
    "infinity": ("a.jsonl", '{"label": -Infinity}', ["-Infinity is not JSON"]),
    "overflow": ("a.jsonl", '{"label": 1e999}', ["'1e999' is too large"]),
    "digits": ("a.jsonl", '{"label": ' + "1" * 5000 + "}", [":1:", "more digits"]),
    "deep": ("a.jsonl", '{"a":' * 100_000, [":1:", "nested too deeply"]),
    "key twice": ("a.jsonl", '{"a": 1, "b": 2, "a": 3}', [":1:", "the key 'a' stands twice"]),
    "control": ("a.jsonl", '{"a": "\x1b[31m"}', [":1:", "'\\x1b[31m", "invalid control character"]),
    "blank jsonl": ("a.jsonl", "\n \n", ["holds no record"]),
    "blank txt": ("a.txt", "\n\n", ["holds no record"]),
    "only docstart": ("a.conll", "-DOCSTART- O\n\n", ["holds no record"]),
    "header only": ("a.csv", "text,label\n", ["holds no record"]),
    "too many": ("a.csv", "text,label\na,1\nb, c,2\n", [":3:", "3 fields where the header has 2 ('text', 'label')"]),
    "too few": ("a.csv", "text,label\n\na\n", [":3:", "1 fields where"]),
    "open quote": ("a.csv", 'text,label\na,1\n"b,2\nc,3\n', [":3:", "never closed"]),
    "stray quote": ("a.csv", 'text,label\n"b"c,2\n', [":2:", "after a closing quotation mark"]),
    "twins": ("a.csv", "text,text\na,b\n", [":1:", "two columns are named 'text'"]),
    "tsv": ("a.tsv", 'text\tlabel\n"a\t1\nb\n', [":3:", "1 fields where", "use .jsonl"]),
    "not parquet": ("a.parquet", b"text,label\n1,2\n", ["not a Parquet file, or damaged"]),
    "cut parquet": ("a.parquet", to_parquet([{"a": "b"}] * 9)[:-20], ["not a Parquet file, or damaged"]),
    "parquet twins": ("a.parquet", to_parquet([], ["a", "b", "a"]), ["two columns are named 'a'"]),
    "zipped parquet": ("a.parquet.gz", b"x", ["compressed inside", "gunzip"]),
    "no rows": ("a.parquet", to_parquet([], ["text"]), ["holds no record"]),
    "conll columns": ("a.conll", "EU B\ncalls V O\n", [":2:", "found 3 columns in 'calls V O', wanted 2 as in line 1"]),
    "conll no token": ("a.conll", "EU\tB\n\tO\n", [":2:", "no token in the first column"]),
    "ending": ("a.xlsx", b"x", ["found the ending '.xlsx'", ".conll .csv .json .jsonl .parquet .tsv .txt (also .gz"]),
    "no ending": ("data", b"x", ["a name without an ending"]),
    "json lines": ("a.json", '{"a": 1}\n{"a": 2}\n', [":2:", "more than one JSON document", ".jsonl"]),
    "json line": ("a.json", '[\n{"a": 1},\n{"a" 2}]', [":3:", "column 6", "':' delimiter"]),
    "json object": ("a.json", '{"texts": []}', ["found an object with 'texts'", 'SQuAD\'s {"data"']),
    "json strings": ("a.json", '["a"]', ["[0] is a string, wanted an object"]),
    "empty array": ("a.json", "[]", ["holds no record"]),
    "flat squad": ("a.json", '{"data": [{"question": "a"}]}', ["data[0] has no 'paragraphs'; it has 'question'"]),
    "no context": ("a.json", '{"data": [{"paragraphs": [{"qas": []}]}]}', ["data[0].paragraphs[0] has no 'context'"]),
    "no question": ("a.json", json.dumps(squad(question=None)), ["qas[0].question is null, wanted a string"]),
    "answers": ("a.json", json.dumps(squad(answers={"text": []})), [".answers is an object, wanted a list"]),
    "true start": ("a.json", json.dumps(squad(answers=[{"text": "a", "answer_start": True}])), ["is true or false"]),
    "start": (
        "a.json",
        json.dumps(squad(answers=[{"text": "a", "answer_start": "0"}])),
        ["data[0].paragraphs[0].qas[0].answers[0].answer_start is a string, wanted a whole number"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_told_in_one_line(tmp_path, case):
    name, content, fragments = BAD[case]
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        list(read_records(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < 500
    assert [fragment for fragment in fragments if fragment not in message] == [], message


@given(at=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_damaged_parquet_file_never_ends_in_a_traceback(tmp_path_factory, at, byte):
    content = bytearray(to_parquet([{"text": f"text {n}", "label": n} for n in range(20)]))
    content[at % len(content)] = byte
    path = write(tmp_path_factory.mktemp("parquet"), "a.parquet", bytes(content))
    with suppress(DataError):
        list(read_records(path))


def test_a_parquet_page_whose_checksum_is_wrong_is_told(tmp_path):
    path = tmp_path / "a.parquet"
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    parquet.write_table(pyarrow.table({"text": ["first", "second"]}), path, write_page_checksum=True, **plain)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"second", b"secand", 1))
    with pytest.raises(DataError, match="damaged"):
        list(read_records(path))


def test_times_of_parquet_that_python_has_not_are_text(tmp_path):
    table = {
        "text": ["a"],
        "nanoseconds": pyarrow.array([1_000_000_001], pyarrow.timestamp("ns")),
        "day": pyarrow.array([2000], pyarrow.date32()),
        "far": pyarrow.array([2**30], pyarrow.date32()),
        "long": pyarrow.array([5], pyarrow.duration("ns")),
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    (record,) = read_records(tmp_path / "a.parquet")
    far = record.fields.pop("far")
    assert isinstance(far, str)
    assert record.fields == {
        "text": "a",
        "nanoseconds": "1970-01-01 00:00:01.000000001",
        "day": "1975-06-24",
        "long": 5,
    }


def test_require():
    record = Record(
        {"text": "a", "label": 3, "score": "4.5", "tags": ["O", 1], "none": None, "yes": True}, "a.jsonl", 7
    )
    assert require(record, "text", str) == "a"
    assert require(record, "label", str, int) == 3
    assert isinstance(require(record, "label", float), float)
    assert require(record, "score", float) == 4.5
    assert require(record, "score", str, float) == "4.5"
    assert require(record, "yes", bool) is True
    for name, kind, message in (
        ("tags", str, "'tags' is a list, wanted a string"),
        ("tags", list[str], "'tags' is a list whose item 2 is a whole number, wanted a list of strings"),
        ("none", str, "'none' is null, wanted a string"),
        ("yes", float, "'yes' is true or false ('True'), wanted a number"),
        ("score", int, "'score' is a string ('4.5'), wanted a whole number"),
        ("txt", str, "no field 'txt'; there are 'text', "),
    ):
        with pytest.raises(DataError) as caught:
            require(record, name, kind)
        assert str(caught.value).startswith(f"a.jsonl:7: {message}")
    for number in (float("nan"), float("inf"), 10**400):
        with pytest.raises(DataError, match="wanted a number"):
            require(Record({"label": number}, "a.parquet", 1), "label", float)


def test_fields_that_are_parted_by_something_else_are_told():
    with pytest.raises(DataError, match=r"there are 'text;label'; fields are parted by commas: mend the file \("):
        require(Record({"text;label": "a;b"}, "a.csv", 2), "text", str)
    with pytest.raises(DataError, match=r"fields are parted by tabs"):
        require(Record({"text,label": "a,b"}, "a.tsv", 2), "text", str)
    with pytest.raises(DataError, match=r"say --columns\.label ' label' \("):  # as a shell takes it
        require(Record({"text": "a", " label": "b"}, "a.csv", 2), "label", str)


def test_require_says_what_to_try():
    with pytest.raises(DataError, match=r"say --columns\.label lable \(the first line must name the columns\)$"):
        require(Record({"lable": "a", "text": "b"}, "a.csv", 2), "label", str)
    with pytest.raises(DataError, match=r"for a file, pass pathlib\.Path\('train\.jsonl'\)"):
        require(next(read_records(["train.jsonl"])), "label", str)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not beside the checkout")
@pytest.mark.parametrize("language", ["zh", "en"])
def test_real_files_hold_what_their_list_says(language):
    listed = re.findall(
        r"^\| (\S+\.jsonl\.gz) \| ([\d,]+) \| ([\d,]+) \|", (SHARED / language / "SOURCES.md").read_text(), re.M
    )
    counts = {
        name: int(records.replace(",", "")) for name, records, size in listed if int(size.replace(",", "")) < 200_000
    }
    assert len(counts) > 50
    for name, count in counts.items():
        assert sum(1 for _ in read_records(SHARED / language / name)) == count, name
