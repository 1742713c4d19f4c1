"""`bothways demo`: what the built-in model does, then one of your own from raw text to scores, in a few minutes.

`show` is the Python way from start to finish, made to be copied.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError, Stopped

MARK = "made-by-bothways-demo.txt"
PARTS = ("text", "order", "pretrained", "untrained", "finetuned", "finetuned-untrained")

PRETRAIN: dict[str, Any] = {
    "model": "tiny",
    "vocab_size": 6000,
    "step_tokens": 2048,
    "evaluate_tokens": 16384,
    "precision": "float32",
    "optim": {"method": "adamw", "lr": 1.5e-3, "dropout": 0.1},  # what its figures in LOG.md were made with
    # So few steps teach which pieces stand near each other; whole words, long texts and sentence pairs take more.
    "corpus": {"max_length": 64, "second": None, "whole_words": 0.0},
}
FINETUNE: dict[str, Any] = {"batch": 64, "precision": "float32", "optim": {"lr": 1e-3}}

SENTENCES = [
    "Cancel the task and wait until the event loop has closed its transports.",
    "Parse the header of a message and decode the charset of its address.",
    "Return the geometry of the widget and bind a callback to the button.",
]
MASKED = ["Return the [MASK] of the string.", "Return [MASK] if the path exists."]


@dataclass(frozen=True)
class Demo:
    """Train, score and use a small model, start to finish: a few minutes on two cores."""

    out: Path = Path("demo")
    """folder for all that is made; what an earlier demo made there is replaced"""
    steps: int = 1200
    """steps of pre-training"""
    epochs: int = 6
    """times through the labelled sentences"""
    common: Annotated[Common, FLAT] = field(default_factory=Common)


@dataclass(frozen=True)
class System:
    """One way to label a sentence, and how it did on the test sentences."""

    name: str
    accuracy: float
    macro_f1: float
    right: list[float]  # 1 for each test sentence that it got right, else 0


@dataclass(frozen=True)
class Shown:
    """What the demo compared, the pre-trained model last.

    order: the built-in model and others, on the order of words; empty where there is no built-in model
    own:   the model that the demo itself pre-trained and others, on the modules
    """

    order: list[System]
    own: list[System]


def run(argv: list[str]) -> int:
    """Show all of it; exit code 1 if the built-in model learns a task no better than its shape untrained."""
    wanted = config.load(Demo, argv, prog="bothways demo")
    try:
        shown = show(wanted)
    except Stopped:
        raise Stopped("stopped; `bothways demo` begins again from the start") from None
    if shown.order and shown.order[-1].accuracy <= shown.order[-2].accuracy:
        print("bothways: the demo failed: being pre-trained did not help the built-in model", file=sys.stderr)
        return 1
    return 0


def show(wanted: Demo, library: Path | None = None) -> Shown:
    """The built-in model as it is and on a task; then text, pre-training, fine-tuning, scores, predictions of another.

    `library` is a folder of Python source whose documentation is the text (none: the standard library).
    """
    import bothways
    from bothways.cli.demo_baselines import majority, tfidf
    from bothways.cli.demo_builtin import at_hand, filled, learn, meet
    from bothways.cli.demo_text import read_rows, write_text

    out, seed, device = prepare(wanted.out), wanted.common.seed, wanted.common.device
    common = {"seed": seed, "device": device, "quiet": wanted.common.quiet}
    screen = Screen(quiet=wanted.common.quiet)
    builtin = at_hand(device)
    if builtin is not None and not wanted.common.quiet:
        meet(builtin, screen)

    screen.section("1. Text: what Python's standard library says of itself")
    text = write_text(out / "text", seed=seed, library=library)
    screen.say(f"{text.read.stat().st_size / 1e6:.1f} MB to read, in {text.read}")
    screen.say(f"sentences to tell apart: {', '.join(f'{count:,} {name}' for name, count in text.sentences.items())}")
    screen.say(f"from {len(text.labels)} modules: {', '.join(text.labels)}")

    order = [] if builtin is None else learn(builtin, text, out / "order", screen, common)

    screen.section("2. A model of your own. Pre-training: a vocabulary, then masked pieces to guess")
    reader = bothways.pretrain(
        text=[text.read], dev=[str(text.read_dev)], out=out / "pretrained", steps=wanted.steps, **PRETRAIN, **common
    )

    screen.section("3. Fine-tuning: which module does a sentence come from?")
    labelled = {"train": text.train, "dev": text.dev, "epochs": wanted.epochs, **FINETUNE, **common}
    tuned = bothways.finetune("classify", model=str(reader.model), out=out / "finetuned", **labelled)
    screen.say("the same again, from random weights:")
    random = untrained(reader.model, out / "untrained", seed=seed)
    tuned_random = bothways.finetune("classify", model=str(random), out=out / "finetuned-untrained", **labelled)

    screen.section("4. Scores on test sentences, none of which was seen before")
    train, dev, test = (read_rows(path) for path in (text.train, text.dev, text.test))
    sentences = [row["text"] for row in test]
    model, model_random = (bothways.load(run.model, device=device) for run in (tuned, tuned_random))
    own = [
        judged("always the commonest module", majority(train, test), test),
        judged("TF-IDF + logistic regression", tfidf(train, dev, test), test),
        judged("tiny BERT, not pre-trained", [answer["label"] for answer in model_random.predict(sentences)], test),
        judged("tiny BERT, pre-trained", [answer["label"] for answer in model.predict(sentences)], test),
    ]
    screen.compare(own, seed=seed)
    scores = {system.name: {"accuracy": system.accuracy, "macro_f1": system.macro_f1} for system in [*order, *own]}
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")

    screen.section("5. Predictions")
    for sentence, answer in zip(SENTENCES, model.predict(SENTENCES), strict=True):
        screen.say(f"{sentence}\n    {answer['label']} {answer['score']:.2f}")
    for line in filled(bothways.load(reader.model, device=device), MASKED):
        screen.say(line)

    screen.section("Yours")
    screen.say(f"loss by step   {out}/pretrained/loss.png and {out}/finetuned/loss.png")
    screen.say(f"every score    bothways evaluate {out}/finetuned --data {text.test}")
    screen.say(f"a sentence     bothways predict {out}/finetuned 'Wait for the child process to end.'")
    screen.say(f"in a browser   bothways serve {out}/finetuned, or bothways serve for the built-in model")
    return Shown(order, own)


def untrained(model: Path, folder: Path, *, seed: int) -> Path:
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

    def compare(self, systems: Sequence[System], *, seed: int) -> None:
        """The scores of all systems, and how sure it is that the last is better than those trained before it."""
        from rich.table import Table

        table = Table("", "accuracy", "macro F1")
        for system in systems:
            table.add_row(system.name, f"{system.accuracy:.3f}", f"{system.macro_f1:.3f}")
        self.console.print(table)
        for other in systems[-2:0:-1]:
            self.say(compared(systems[-1], other, seed=seed))
