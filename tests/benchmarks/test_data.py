"""benchmarks/data.py: both sides come to the same tokens, and time and memory are told."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks import _text, data

from bothways.text.tokenizer import Tokenizer


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """A text and a vocabulary, as flags."""
    (tmp_path / "text.txt").write_text("A good film.\nA bad day!\n\n一只 dog\n\nTown\n", encoding="utf-8")
    Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film", "day", "一", "."]).save(
        tmp_path / "vocab"
    )
    return ["--text", str(tmp_path / "text.txt"), "--vocab", str(tmp_path / "vocab")]


def test_both_sides_come_to_the_same_tokens(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*given, "--sizes", "0.01", "0.02", "--rounds", "1", "--threads", "1", "--scratch", str(tmp_path)]
    assert data.main(words) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")][2:]
    assert [row[:2] for row in rows] == [[size, side] for size in ("0.01", "0.02") for side in data.SIDES]
    assert all(float(row[4].split()[0]) > 10 for row in rows)  # MiB: no Python is smaller
    assert "For 2.0 × the text: bothways" in out
    assert "the same tokens on both sides" in out
    assert "NOT" not in out


def test_a_side_that_differs_is_told() -> None:
    row = {"seconds": 1.0, "peak_mib": 50.0, "tokens": 7, "sum": 30, "bytes": 1e6}
    taken = {(1.0, "bothways"): [row], (1.0, "in memory"): [row | {"sum": 31}]}
    assert "Tokens: 7, NOT the same tokens" in data.summary(taken)


def test_memory_of_children_counts() -> None:
    child = "x = bytearray(60 << 20); print(1, flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        peak = data.Peak(process.pid)
        while peak._most < 60 << 20:  # the test's own time limit ends it
            time.sleep(data.EVERY)
        process.communicate(b"\n")
    assert 60 < peak.ended() < 300


def test_text_is_drawn_again_in_the_same_orders(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a\nb\n\nc\n\nd\n", encoding="utf-8")
    documents = _text.read_documents([tmp_path / "text.txt"], 1)
    assert documents == [["a", "b"], ["c"], ["d"]]
    first, second = tmp_path / "1.txt", tmp_path / "2.txt"
    assert _text.write_documents(first, documents, 0.001) == first.stat().st_size >= 1000
    _text.write_documents(second, documents, 0.001)
    assert first.read_bytes() == second.read_bytes()
    found = _text.read_documents([first], 1)
    assert sorted(found[:3]) == sorted(found[3:6]) == documents
    assert documents == [["a", "b"], ["c"], ["d"]]
    assert _text.read_documents([first], 0.000008) == found[:2]
