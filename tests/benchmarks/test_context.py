"""The comparison of contexts, in small: every model on every task of both languages, in one table, once."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from benchmarks import context

WORDS = {"en": ["the", "film", "was", "good", "bad", "day"], "zh": ["电影", "很", "好", "坏", "天气", "今天"]}


def row(kind: str, language: str, draw: random.Random) -> dict:
    words = draw.choices(WORDS[language], k=6)
    text = (" " if language == "en" else "").join(words)
    label = draw.choice(["yes", "no"])
    return {
        "text": {"text": text, "label": label},
        "pair": {"text_a": text, "text_b": text[::-1], "label": label},
        "sense": {"text_a": text, "text_b": text, "label": label, "index_a": 1, "index_b": 2},
        "words": {"tokens": words, "tags": ["B-PER" if draw.random() < 0.3 else "O" for _ in words]},
        "characters": {"words": words},
    }[kind]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw = random.Random(0)
    for language, tasks in context.TASKS.items():
        text = tmp_path / f"{language}.txt"
        lines = [row("text", language, draw)["text"] for _ in range(400)]
        text.write_text("\n".join(lines) + "\n", encoding="utf-8")
        monkeypatch.setitem(context.TEXT, language, text.name)
        for task in tasks:
            (tmp_path / task.folder).mkdir(parents=True)
            for split in ("train", "dev", "test"):
                with gzip.open(tmp_path / task.folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
                    file.writelines(json.dumps(row(task.kind, language, draw)) + "\n" for _ in range(12))
    return tmp_path


@pytest.mark.slow
def test_one_command_compares_all(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--shared", str(shared), "--tokens", "4096", "--quick", "--threads", "1", "--out", str(shared / "out")]
    assert context.main([*words, "--vocab", "60"]) == 0
    first = capsys.readouterr().out
    told = (shared / "out" / "quick" / "context.md").read_text(encoding="utf-8")
    assert told in first
    heads, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines()]
    tasks = [f"{language} {task.name}, {task.measure}" for language, own in context.TASKS.items() for task in own]
    assert heads[1:-2] == tasks
    assert [cells[0] for cells in rows[-4:]] == [
        "two LSTMs",
        "left to right",
        "BERT",
        "BERT and the best of the others",
    ]
    scores = {cells[0]: [float(cell) for cell in cells[1 : 1 + len(tasks)]] for cells in rows}
    ahead = scores.pop("BERT and the best of the others")
    own = scores.pop("BERT")
    for at, found in enumerate(ahead):
        assert found == pytest.approx(own[at] - max(other[at] for other in scores.values()), abs=0.11)
    assert (shared / "out" / "quick" / "context.png").is_file()
    assert context.main([*words, "--vocab", "60"]) == 0
    assert ":" not in capsys.readouterr().out.split("BERT\n")[-1].split("|")[0], "what was scored is not scored again"
