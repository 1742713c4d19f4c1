"""Documents from files and folders: all text once, in bounded memory, nothing passed over in silence."""

from __future__ import annotations

import lzma
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from bothways.data import documents as module
from bothways.data.documents import Document, documents, text_files
from bothways.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_blank_lines_part_the_documents_of_a_txt_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\na\nb\n \n\nc", encoding="utf-8")
    assert list(documents([path])) == [Document(["a", "b"], str(path), 3), Document(["c"], str(path), 7)]


def test_records_are_documents_and_their_lines_paragraphs(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a\\r\\nb\\u2028c\\n\\n"}\n{"text": " "}\n{"text": "d"}\n', encoding="utf-8"
    )
    (tmp_path / "b.csv").write_text('text\n"e\nf"\n', encoding="utf-8")
    parquet.write_table(pyarrow.table({"text": ["g", "h"]}), tmp_path / "c.parquet")
    found = [(Path(d.path).name, d.line, d.paragraphs) for d in documents([tmp_path])]
    assert found == [
        ("a.jsonl", 1, ["a", "b\u2028c"]),
        ("a.jsonl", 3, ["d"]),
        ("b.csv", 2, ["e", "f"]),
        ("c.parquet", 1, ["g"]),
        ("c.parquet", 2, ["h"]),
    ]


def test_columns_name_the_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "a"}\n')
    assert [d.paragraphs for d in documents(tmp_path, {"text": "body"})] == [["a"]]
    with pytest.raises(DataError, match=r"a\.jsonl:1: no field 'text'; there are 'body'; .*--columns\.text"):
        list(documents(tmp_path))


def test_several_columns_are_a_document_each(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"source": "a\\nb", "target": "c"}\n{"source": " ", "target": ["d", "e"]}\n{"x, y": "f"}\n')
    found = documents(path, {"text": "source, target,source"})
    assert [next(found).paragraphs for _ in range(4)] == [["a", "b"], ["c"], ["d"], ["e"]]
    message = r"a\.jsonl:3: no column 'source' \(from --columns\.text\); there are 'x, y'"
    with pytest.raises(DataError, match=message):
        next(found)
    path.write_text('{"x, y": "f"}\n')
    assert [d.paragraphs for d in documents(path, {"text": "x, y"})] == [["f"]], "a name with a comma in it"
    path.write_text('{"source": "a", "target": 3}\n')
    with pytest.raises(DataError, match=r"'target' is a whole number \('3'\), wanted a string or a list of strings"):
        list(documents(path, {"text": "source,target"}))


@given(lines=st.lists(st.text("ab ", max_size=30), min_size=1, max_size=30), most=st.integers(1, 40))
def test_no_line_is_lost_and_long_documents_are_cut_at_line_ends(tmp_path_factory, lines, most):
    path = tmp_path_factory.mktemp("documents") / "a.txt"
    path.write_text("x\n" + "\n".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_CHARACTERS", most)
        found = list(documents([path]))
    assert [line for d in found for line in d.paragraphs] == ["x"] + [line for line in lines if line.strip()]
    assert all(len(d.paragraphs) == 1 or sum(map(len, d.paragraphs)) <= most for d in found)
    before = [None, *found]
    for last, document in zip(before, found, strict=False):
        assert document.part == 1 or (last is not None and document.part == last.part + 1)
        assert (["x", *lines])[document.line - 1] == document.paragraphs[0]
    pattern = "".join("." if line.strip() else " " for line in ["x", *lines])
    assert sum(document.part == 1 for document in found) == len(pattern.split())


def test_a_line_longer_than_a_document_stays_whole(tmp_path):
    (tmp_path / "a.txt").write_text("a\n" + "b" * 2_500_000 + "\nc\n")
    assert [[len(p) for p in d.paragraphs] for d in documents([tmp_path])] == [[1], [2_500_000], [1]]


def test_folders_are_walked_in_order_without_hidden_files(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/.hidden", ".git/c.bin", "a/b/c.txt.xz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(lzma.compress(b"xz") if name.endswith("xz") else b"four")
    assert [str(p.relative_to(tmp_path)) for p in text_files([tmp_path])] == ["a/b/c.txt.xz", "a/z.txt", "b.txt"]
    assert text_files([tmp_path / "b.txt", tmp_path / "a"]) == text_files([tmp_path])


def test_what_cannot_be_a_corpus_is_told(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("\n \n")
    link = tmp_path / "link.txt"
    link.symlink_to(text)
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "photo.png").write_bytes(b"x")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to(tmp_path / "loop")
    (tmp_path / "bad.json").write_text("[]")
    for paths, message in (
        ([text], r"a\.txt: the file holds no text, every line or record is blank$"),
        ([text, text], r"a\.txt: the file is given twice: name it once"),
        ([text, link], r"link\.txt: the file is given twice, as '.*a\.txt' too"),
        ([tmp_path / "empty"], r"a folder without text files, wanted \.txt"),
        (
            [tmp_path / "mixed"],
            r'photo\.png: not a kind of text file .*; to leave it out, move it away or put a "\." before',
        ),
        (
            [tmp_path / "bad.json"],
            r"bad\.json: not a kind of text file known here, wanted \.txt .*\(also \.gz, \.xz\)$",
        ),
        ([tmp_path / "loop"], "again: the folder is a link to a folder that holds it"),
        ([tmp_path / "none.txt"], "no such file"),
        ([Path("/dev/null")], "not a kind of text file"),
        ([], "no text file is given"),
    ):
        with pytest.raises(DataError, match=message):
            list(documents(paths))


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not beside the checkout")
def test_real_corpora_hold_as_many_documents_as_their_list_says():
    for name, count in (("en/rawtext/wikipedia_2015/dev.txt.xz", 110), ("en/rawtext/novels_19c/dev.txt.xz", 3)):
        assert sum(document.part == 1 for document in documents([SHARED / name])) == count
