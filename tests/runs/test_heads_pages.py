"""The rows of `runs.heads` in docs/results.md."""

from __future__ import annotations

from typing import Any

from runs.heads_pages import heads_section

GSD, MSRA, TNEWS = "zh/segmentation/gsdsimp", "zh/ner/msra", "zh/classification/tnews"


def row(measure: str, head: str, name: str, f1: float, **more: Any) -> dict[str, Any]:
    made = {"heads": "open", "weights": "a", "lr": 1e-3, "seed": 0, "quick": False}
    return made | {"measure": measure, "head": head, "set": name, "scores": {"f1": f1}} | more


def test_the_latest_heads_are_told_beside_jieba() -> None:
    rows = [
        {"measure": "jieba", "head": "words", "set": GSD, "version": "1.0", "scores": {"f1": 0.8}},
        row("test", "words", GSD, 0.5, weights="older"),
        {name: value for name, value in row("dev", "", GSD, 0.1).items() if name not in ("head", "set")},
        *(row("test", "words", GSD, f1, seed=seed) for seed, f1 in enumerate((0.91, 0.93))),
        row("raw", "words", GSD, 0.9),
        {"measure": "masked before", "language": "zh", "weights": "a", "quick": False},
        row("test", "zh_entities", MSRA, 0.6, heads="research"),
        row("test", "zh_topic", TNEWS, 0.5, heads="research", weights="older"),
        row("test", "zh_entities", MSRA, 0.7, heads="research", only=["zh_entities"]),
    ]
    lines = [line for line in heads_section(rows).splitlines() if line.startswith(("| open", "| research"))]
    assert lines == [
        f"| open | words | {GSD} | jieba 1.0 | – | F1 80.00 | | |",
        f"| open | words | {GSD} | its own task | 2 | F1 92.00 ± 1.41 | 94, aim 97 |  |",
        f"| open | words | {GSD} | in raw text | 1 | F1 90.00 |  |  |",
        f"| research | zh_entities | {MSRA} | its own task | 1 | F1 70.00 | 88, aim 93 | BERT-base 95.2 |",
        f"| research | zh_topic | {TNEWS} | its own task, from the model before | 1 | F1 50.00 |  |  |",
    ]
    assert heads_section([]) == ""
