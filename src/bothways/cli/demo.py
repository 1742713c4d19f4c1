"""`bothways demo`: masks filled, words in two senses, a model fine-tuned and scored in a few minutes, without network.

`show` is the Python way from start to finish, made to be copied.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError, Stopped

if TYPE_CHECKING:
    from bothways.infer.predictor import Predictor

MARK = "made-by-bothways-demo.txt"
PARTS = ("text", "untrained", "finetuned", "finetuned-untrained")

FINETUNE: dict[str, Any] = {"batch": 64, "optim": {"lr": 5e-4}}

MASKED = [
    "北京是中国的首[MASK]。",
    "他在大学学习[MASK]学。",
    "He was born in [MASK] york.",
    "She is a member of the [MASK].",
]
# One word in two senses: of three texts the first two share one, and should be nearer than the third.
SENSES = [
    ("苹果", ["苹果公司发布了新的手机。", "苹果公司的股票上涨了。", "他吃了一个红色的苹果和一个梨。"]),
    ("bank", ["The bank lent the company money.", "The bank raised its rates.", "They sat on the bank of the river."]),
]
SENTENCES = [
    "Cancel the task and wait until the event loop has closed its transports.",
    "Parse the header of a message and decode the charset of its address.",
    "Return the geometry of the widget and bind a callback to the button.",
]


@dataclass(frozen=True)
class Demo:
    """Use the model that comes with the package, fine-tune it and score it: a few minutes on two cores."""

    model: str = "builtin"
    """a pre-trained model to show instead"""
    out: Path = Path("demo")
    """folder for all that is made; what an earlier demo made there is replaced"""
    epochs: int = 3
    """times through the labelled sentences"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


@dataclass(frozen=True)
class System:
    """One way to tell the module of a sentence, and how it did on the test sentences."""

    name: str
    accuracy: float
    macro_f1: float
    right: list[float]  # 1 for each test sentence that it got right, else 0


def run(argv: list[str]) -> int:
    """Show all of it; 1 when pre-training turned out to be of no use."""
    wanted = config.load(Demo, argv, prog="bothways demo")
    try:
        *_, random, pretrained = show(wanted)
    except Stopped:
        raise Stopped("stopped; `bothways demo` begins again from the start") from None
    if pretrained.accuracy > random.accuracy:
        return 0
    print("bothways: the demo failed: the pre-trained model does not beat the same model untrained", file=sys.stderr)
    return 1


def show(wanted: Demo, library: Path | None = None) -> list[System]:
    """Masks, senses, fine-tuning, scores, predictions; gives the systems compared, ours last.

    `library` is a folder of Python source whose documentation is the text (none: the standard library).
    """
    import bothways
    from bothways.cli.demo_baselines import majority, tfidf
    from bothways.cli.demo_text import read_rows, write_text

    out, seed, device = prepare(wanted.out), wanted.common.seed, wanted.common.device
    common = {"seed": seed, "device": device, "quiet": wanted.common.quiet}
    screen = Screen(quiet=wanted.common.quiet)

    begun = time.perf_counter()
    reader = bothways.load(wanted.model, device=device)
    screen.section("1. A pre-trained model fills masks")
    screen.say(f"{reader.model.parameters:,} parameters, loaded in {time.perf_counter() - begun:.1f} s")
    for sentence, masks in zip(MASKED, reader.fill_mask(MASKED), strict=True):
        words = (f"{filling['token']} {filling['score']:.2f}" for filling in masks[0]["fillings"])
        screen.say(f"{sentence}\n    {', '.join(words)}")

    screen.section("2. The vector of a word depends on both sides of it")
    for word, texts in SENSES:
        same, other = senses(reader, word, texts)
        screen.say(f"{word}: {texts[0]}\n    {same:.2f}  {texts[1]}\n    {other:.2f}  {texts[2]}")

    screen.section("3. Fine-tuning: from which module of Python's standard library does a sentence come?")
    text = write_text(out / "text", seed=seed, library=library)
    screen.say(f"sentences to tell apart: {', '.join(f'{count:,} {name}' for name, count in text.sentences.items())}")
    screen.say(f"from {len(text.labels)} modules: {', '.join(text.labels)}")
    labelled = {"train": text.train, "dev": text.dev, "epochs": wanted.epochs, **FINETUNE, **common}
    tuned = bothways.finetune("classify", model=wanted.model, out=out / "finetuned", **labelled)
    screen.say("the same again, from random weights:")
    random = untrained(wanted.model, out / "untrained", seed=seed)
    tuned_random = bothways.finetune("classify", model=str(random), out=out / "finetuned-untrained", **labelled)

    screen.section("4. Scores on test sentences, none of which was seen before")
    train, dev, test = (read_rows(path) for path in (text.train, text.dev, text.test))
    sentences = [row["text"] for row in test]
    model, model_random = (bothways.load(run.model, device=device) for run in (tuned, tuned_random))
    systems = [
        judged("always the commonest module", majority(train, test), test),
        judged("TF-IDF + logistic regression", tfidf(train, dev, test), test),
        judged("BERT, not pre-trained", [answer["label"] for answer in model_random.predict(sentences)], test),
        judged("BERT, pre-trained", [answer["label"] for answer in model.predict(sentences)], test),
    ]
    screen.table(systems)
    for system in systems[2:0:-1]:
        screen.say(compared(systems[3], system, seed=seed))
    scores = {system.name: {"accuracy": system.accuracy, "macro_f1": system.macro_f1} for system in systems}
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")

    screen.section("5. Predictions")
    for sentence, answer in zip(SENTENCES, model.predict(SENTENCES), strict=True):
        screen.say(f"{sentence}\n    {answer['label']} {answer['score']:.2f}")

    screen.section("Yours")
    screen.say(f"loss by step   {out}/finetuned/loss.png")
    screen.say(f"every score    bothways evaluate {out}/finetuned --data {text.test}")
    screen.say(f"a sentence     bothways predict {out}/finetuned 'Wait for the child process to end.'")
    screen.say(f"a page         bothways serve {out}/finetuned")
    return systems


def senses(reader: Predictor, word: str, texts: Sequence[str]) -> tuple[float, float]:
    """The cosine of the word's vector in the first text with that in the second, and with that in the third."""
    vectors = []
    for text, parts in zip(texts, reader.embed(texts, level="token", layers="mean:-4:"), strict=True):
        assert parts.offsets is not None
        start = text.lower().index(word)
        inside = [start <= span[0] and span[1] <= start + len(word) for span in parts.offsets]
        vectors.append(parts.vectors[inside].mean(axis=0))
    first, second, third = (vector / np.linalg.norm(vector) for vector in vectors)
    return float(first @ second), float(first @ third)


def untrained(model: str, folder: Path, *, seed: int) -> Path:
    """A model of the same shape and vocabulary as `model`, with random weights."""
    from bothways.models.model import fresh, load, save, seed_everything

    same = load(model)
    seed_everything(seed)
    return save(fresh(same.config, same.tokenizer, None), folder)


def judged(name: str, predicted: Sequence[str], test: Sequence[dict[str, str]]) -> System:
    """A system by what it predicted for the test sentences."""
    from bothways.metrics.classes import classification

    gold = [row["label"] for row in test]
    scores = classification(gold, predicted)
    right = [float(a == b) for a, b in zip(gold, predicted, strict=True)]
    return System(name, scores["accuracy"], scores["macro_f1"], right)


def compared(ours: System, other: System, *, seed: int) -> str:
    """In words, which of two systems is better, and how sure that is."""
    from bothways.metrics.bootstrap import paired_bootstrap

    found = paired_bootstrap(ours.right, other.right, seed=seed)
    word = "better" if found.low > 0 else "worse" if found.high < 0 else "no clear difference"
    points = f"{100 * found.difference:+.1f} points, 95% interval {100 * found.low:+.1f} to {100 * found.high:+.1f}"
    return f"{ours.name}, beside {other.name}: {word} ({points})"


def prepare(out: Path) -> Path:
    """`out`, empty or rid of what an earlier demo made there; nothing else is ever deleted.

    Raises:
        ConfigError: `out` is something that no demo made.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"--out {out} exists already and is no folder; give another one")
    if out.exists() and any(out.iterdir()) and not (out / MARK).is_file():
        raise ConfigError(f"--out {out} exists already and no demo made it; give another folder, or remove it first")
    out.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (out / part).is_dir():
            shutil.rmtree(out / part)
    told = f"`bothways demo` made {', '.join(PARTS)} in this folder, and replaces them when it runs again.\n"
    (out / MARK).write_text(told, encoding="utf-8")
    return out


class Screen:
    """What the demo prints: the table of scores and, unless `quiet`, headings and remarks."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console

        self.quiet, self.console = quiet, Console(highlight=False)

    def section(self, title: str) -> None:
        """A heading."""
        if not self.quiet:
            self.console.print(f"\n[bold]{title}[/bold]")

    def say(self, line: str) -> None:
        """A remark, as it is."""
        if not self.quiet:
            self.console.print(line, markup=False, soft_wrap=True)

    def table(self, systems: Sequence[System]) -> None:
        """The scores of all systems."""
        from rich.table import Table

        table = Table("", "accuracy", "macro F1")
        for system in systems:
            table.add_row(system.name, f"{system.accuracy:.3f}", f"{system.macro_f1:.3f}")
        self.console.print(table)
