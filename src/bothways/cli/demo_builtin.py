"""What the demo shows of the model that comes with the package: as it is, then learning a task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.errors import ModelError

if TYPE_CHECKING:
    import numpy as np

    from bothways.cli.demo import Screen, System
    from bothways.cli.demo_text import DemoText
    from bothways.infer.predictor import Predictor

TEXTS = [
    "小明在北京大学学习计算机科学，去年在上海的一家公司工作。",
    "Ada Lovelace met Charles Babbage in London and wrote the first program.",
]
MASKED = ["他出生于1998年[MASK]月。", "She was born in New [MASK] City."]
ALIKE = [
    (
        "今天下雨，天气很冷。",
        ["明天可能下雪，气温很低。", "这家公司的股票上涨了。", "他在大学学习音乐。", "火车站在城市的北面。"],
    ),
    (
        "The king ruled the country for ten years.",
        [
            "The queen was the head of the state until her death.",
            "The team won the last game of the season.",
            "The river flows north to the sea.",
            "Water boils at a lower temperature on a mountain.",
        ],
    ),
]


SENSES = [
    ("苹果", "我每天早上吃一个苹果。", ["妈妈买了一些苹果和香蕉。", "微软和苹果都是美国的公司。"]),
    (
        "bank",
        "They sat on the bank of the river.",
        ["The boat reached the other bank of the lake.", "She keeps her money in the bank."],
    ),
]
TO_LEARN_FROM = 2400
"""To learn from: as many as take about a minute on two cores, both times together."""
LEARN: dict[str, Any] = {"epochs": 3, "batch": 32, "optim": {"method": "muon", "lr": 3e-4}}


def at_hand(device: str) -> Predictor | None:
    """The built-in model if it has heads to analyse with.

    Raises:
        ModelError: it is damaged or not there.
    """
    import bothways

    model = bothways.load(device=device)
    try:
        model.analyzer()
    except ModelError:
        return None
    return model


def meet(model: Predictor, screen: Screen) -> None:
    """Show what the model does as it is."""
    import numpy as np

    from bothways.cli.analyze import show

    screen.section("At hand: the model that comes with Bothways, as it is")
    show(model.analyze(TEXTS))
    if model.can_fill_masks:
        screen.section("What fits the mask?")
        for line in filled(model, MASKED):
            screen.say(line)
    screen.section("Which sentence is the most alike?")
    for sentence, others in ALIKE:
        vectors = np.asarray(model.embed([sentence, *others], normalize=True))
        screen.say(by_nearness(sentence, others, vectors))
    screen.section("One word, two senses: where is it used alike?")
    for word, sentence, others in SENSES:
        vectors = np.stack([_of_word(parts, word) for parts in model.embed([sentence, *others], level="word")])
        screen.say(by_nearness(f"{word}: {sentence}", others, vectors))


def learn(model: Predictor, text: DemoText, out: Path, screen: Screen, common: Mapping[str, Any]) -> list[System]:
    """Teach the model to tell sentences whose words are out of order, beside TF-IDF and its own untrained shape."""
    import bothways
    from bothways.cli.demo import judged, untrained
    from bothways.cli.demo_baselines import majority, tfidf
    from bothways.cli.demo_text import read_rows, swapped

    start, seed = model.model.folder, common["seed"]
    assert start is not None  # it was loaded from one
    out.mkdir()
    rows = {name: swapped(read_rows(getattr(text, name)), seed=seed) for name in ("train", "dev", "test")}
    rows["train"] = rows["train"][:TO_LEARN_FROM]
    for name, part in rows.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    screen.section("The built-in model learns a task: have two neighbouring words changed places?")
    wrong = next(row for row in rows["train"] if row["label"] == "swapped")
    screen.say(
        f"{len(rows['train']):,} sentences to learn from, every second one changed, such as:\n    {wrong['text']}"
    )
    labelled: dict[str, Any] = {"train": out / "train.jsonl", "dev": out / "dev.jsonl"} | LEARN | dict(common)
    tuned = bothways.finetune("classify", model=str(start), out=out / "finetuned", **labelled)
    screen.say("the same again, from random weights:")
    random = untrained(start, out / "untrained", seed=seed)
    tuned_random = bothways.finetune("classify", model=str(random), out=out / "finetuned-untrained", **labelled)

    def answers(folder: Path) -> list[str]:
        found = bothways.load(folder, device=common["device"]).predict([row["text"] for row in rows["test"]])
        return [one["label"] for one in found]

    systems = [
        judged("always the commoner answer", majority(rows["train"], rows["test"]), rows["test"]),
        judged("order: TF-IDF + logistic regression", tfidf(**rows), rows["test"]),
        judged("order: its shape, not pre-trained", answers(tuned_random.model), rows["test"]),
        judged("order: the built-in model", answers(tuned.model), rows["test"]),
    ]
    screen.compare(systems, seed=seed)
    return systems


def filled(model: Predictor, sentences: Sequence[str]) -> Iterator[str]:
    """Each sentence and, below it, the pieces that fit its first mask."""
    for sentence, masks in zip(sentences, model.fill_mask(list(sentences)), strict=True):
        words = (f"{filling['token']} {filling['score']:.2f}" for filling in masks[0]["fillings"])
        yield f"{sentence}\n    {', '.join(words)}"


def by_nearness(sentence: str, others: Sequence[str], vectors: np.ndarray) -> str:
    """The sentence and, below it, the others with the cosine of their vector and its own, nearest first.

    `vectors` are of length 1, the sentence's first.
    """
    near = sorted(zip((vectors[1:] @ vectors[0]).tolist(), others, strict=True), reverse=True)
    return "\n    ".join([sentence, *(f"{cosine:.2f} {other}" for cosine, other in near)])


def _of_word(parts: Any, word: str) -> np.ndarray:
    """The vector of a word in a sentence, at length 1."""
    vector = parts.vectors[parts.texts.index(word)]
    return vector / (vector @ vector) ** 0.5
