"""What the demo shows of the model that comes with the package: it analyses, fills masks and finds what is alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bothways.errors import ModelError

if TYPE_CHECKING:
    from bothways.cli.demo import Screen
    from bothways.infer.predictor import Predictor

TEXTS = [
    "小明在北京大学学习计算机科学，去年在上海的一家公司工作。",
    "Ada Lovelace met Charles Babbage in London and wrote the first program.",
]
MASKED = ["北京是中国的[MASK]都。", "Paris is the [MASK] of France."]
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


def at_hand(device: str) -> Predictor | None:
    """The built-in model if there is one that can analyse."""
    import bothways

    try:
        model = bothways.load(device=device)
        model.analyzer()
    except ModelError:
        return None
    return model


def meet(model: Predictor, screen: Screen) -> None:
    """Show what the model does as it is."""
    from bothways.cli.analyze import show

    screen.section("At hand: the model that comes with Bothways, as it is")
    show(model.analyze(TEXTS))
    if model.can_fill_masks:
        screen.section("What fits the mask?")
        for line in filled(model, MASKED):
            screen.say(line)
    screen.section("Which sentence is the most alike?")
    for sentence, others in ALIKE:
        screen.say(
            "\n    ".join([sentence, *(f"{near:.2f} {other}" for near, other in nearest(model, sentence, others))])
        )


def filled(model: Predictor, sentences: Sequence[str]) -> Iterator[str]:
    """Each sentence and, below it, the pieces that fit its first mask."""
    for sentence, masks in zip(sentences, model.fill_mask(list(sentences)), strict=True):
        words = (f"{filling['token']} {filling['score']:.2f}" for filling in masks[0]["fillings"])
        yield f"{sentence}\n    {', '.join(words)}"


def nearest(model: Predictor, sentence: str, others: Sequence[str]) -> list[tuple[float, str]]:
    """The others with the cosine of their vector and the sentence's, nearest first."""
    import numpy as np

    vectors = np.asarray(model.embed([sentence, *others], normalize=True))
    return sorted(zip((vectors[1:] @ vectors[0]).tolist(), others, strict=True), reverse=True)
