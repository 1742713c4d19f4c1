"""Lines of strict UTF-8 from plain and compressed files, and what is said of files that are not."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.data import files
from bothways.data.files import open_text, suffix
from bothways.errors import DataError

CHINESE = "今天的天气很好，我们去公园。\n他在上海工作，是一个老师。\n"
TRADITIONAL = "今天的天氣很好，我們去公園。\n他在上海工作，是一個老師。\n"


def lines(path: Path) -> list[str]:
    return [line for _, line in open_text(path)]


@given(
    text=st.text(st.sampled_from("ab中🙂\n\r\x00\u2028\x85\x0b\x0c\ufeff"), min_size=1, max_size=60),
    chunk=st.integers(1, 9),
    ending=st.sampled_from(["", ".gz", ".xz"]),
)
def test_lines_are_those_of_python_s_universal_newlines(tmp_path_factory, text, chunk, ending):
    """Whatever the size of the pieces that are read: characters and CRLF may fall apart anywhere."""
    path = tmp_path_factory.mktemp("lines") / f"a.txt{ending}"
    packed = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[ending](("\ufeff" + text).encode())
    path.write_bytes(packed)
    expected = re.split("\r\n|\r|\n", text)
    if not expected[-1]:
        expected.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK", chunk + 3)  # a byte order mark must fit
        assert list(open_text(path)) == list(enumerate(expected, 1))


def test_a_very_long_line_is_one_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("中" * 1_500_000 + "\nb", encoding="utf-8")
    assert [len(line) for line in lines(path)] == [1_500_000, 1]


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(size: int) -> int:
        path = tmp_path / f"{size}.txt.gz"
        path.write_bytes(gzip.compress(("line of text " * 7 + "\n").encode() * size, compresslevel=1))
        tracemalloc.start()
        assert sum(1 for _ in open_text(path)) == size
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    assert peak(200_000) < 1.3 * peak(20_000)


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.jsonl", ".jsonl"), ("a.JSONL.GZ", ".jsonl"), ("a.b.csv.xz", ".csv"), ("a", ""), (".txt", ""), ("a.gz", "")],
)
def test_suffix(name, ending):
    assert suffix(name) == ending


BAD = {
    "gbk": ("a.txt", CHINESE.encode("gb18030"), [":1:", "byte 0", "GB18030", "`iconv -f GB18030 -t UTF-8 "]),
    "gbk, two characters": ("a.txt", "好评".encode("gbk"), ["looks like GB18030"]),
    "big5": ("a.txt", TRADITIONAL.encode("big5"), [":1:", "looks like Big5", "iconv -f BIG5"]),
    "big5, no frequent word": ("a.txt", "購買電腦主機".encode("big5"), ["looks like Big5"]),
    "gbk, no frequent word": ("a.txt", "购买电脑主机".encode("gbk"), ["looks like GB18030"]),
    "gbk, line 3": ("a.txt", b"a\r\nb\r\n" + CHINESE.encode("gbk"), [":3:", "byte 6", "GB18030"]),
    "utf-16": ("a.txt", CHINESE.encode("utf-16"), [":1:", "FF", "looks like UTF-16:", "-f UTF-16"]),
    "utf-32": ("a.txt", CHINESE.encode("utf-32"), ["looks like UTF-32"]),
    "utf-16, no mark": ("a.txt", "plain words\n".encode("utf-16-le") * 3, ["UTF-16LE", "every second byte is NUL"]),
    "cp1252": ("a.txt", "It’s naïve to go to the café\n".encode("cp1252"), ["byte 2 (92)", "Windows-1252"]),
    "one bad byte": ("a.txt", CHINESE.encode() + b"ab\xffc", [":3:", "(FF)", "damaged", "iconv -c"]),
    "cut in a character": ("a.txt", CHINESE.encode()[:-2], [":2:", "damaged"]),
    "gbk, gzip": (
        "a.txt.gz",
        gzip.compress(CHINESE.encode("gbk")),
        ["gzip -dc", "| iconv -f GB18030", "utf8-a.txt.gz"],
    ),
    "odd name": ("a b'c.txt", CHINESE.encode("gbk"), ["""'"'"'c.txt'"""]),
    "empty": ("a.txt", b"", ["the file is empty"]),
    "empty in gzip": ("a.txt.gz", gzip.compress(b""), ["the file is empty"]),
    "only a mark": ("a.txt", b"\xef\xbb\xbf", ["empty but for a byte order mark"]),
    "cut gzip": ("a.txt.gz", gzip.compress(CHINESE.encode())[:-9], ["gzip data breaks off"]),
    "cut xz": ("a.txt.xz", lzma.compress(CHINESE.encode())[:-9], ["xz data breaks off"]),
    "not gzip": ("a.txt.gz", b"plain", ["ends in .gz", "not compressed", "rename it"]),
    "xz, not gzip": ("a.txt.gz", lzma.compress(b"a"), ["ends in .gz but this is xz data"]),
    "not xz": ("a.txt.xz", b"plain", ["ends in .xz"]),
    "bad gzip": ("a.txt.gz", gzip.compress(CHINESE.encode())[:-8] + b"\0" * 8, ["gzip data is damaged", "CRC"]),
    "gzip unnamed": ("a.txt", gzip.compress(b"a"), ["this is gzip data: name it a.txt.gz"]),
    "excel": ("a.csv", b"PK\x03\x04\xff\xfe", ["zip archive", "Excel"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_told_in_one_line(tmp_path, case):
    name, content, fragments = BAD[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(open_text(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_the_command_that_is_advised_mends_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(CHINESE.encode("gbk"))
    with pytest.raises(DataError) as caught:
        list(open_text(path))
    assert os.system(str(caught.value).split("`")[1]) == 0
    assert (tmp_path / "utf8-a.txt").read_text(encoding="utf-8") == CHINESE


@given(good=st.integers(0, 40), chunk=st.integers(4, 9), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_the_offset_and_line_of_a_bad_byte_do_not_depend_on_how_it_is_read(tmp_path_factory, good, chunk, end):
    path = tmp_path_factory.mktemp("bad") / "a.txt"
    before = ("é" + end).encode() * good
    path.write_bytes(before + b"ab\xff and more\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK", chunk)
        with pytest.raises(DataError) as caught:
            list(open_text(path))
    assert caught.value.line == good + 1
    assert f"byte {len(before) + 2} (FF)" in str(caught.value)


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"no such file; did you mean '.*/train\.jsonl'\?"):
        list(open_text(tmp_path / "trian.jsonl"))
    with pytest.raises(DataError, match=r"no such file; the folder holds 'train\.jsonl'"):
        list(open_text(tmp_path / "zzz"))
    with pytest.raises(DataError, match=r"no such file, and no folder '.*/none'"):
        list(open_text(tmp_path / "none" / "a.txt"))
    with pytest.raises(DataError, match=r"this is a folder, wanted a file; it holds 'train\.jsonl'"):
        list(open_text(tmp_path))
    with pytest.raises(DataError, match="cannot be read: embedded null byte"):
        list(open_text("a\0b"))
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        list(open_text(tmp_path / ("a" * 300)))


def test_permission_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("a")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may read anything
    with pytest.raises(DataError, match="no permission to read the file"):
        list(open_text(path))
