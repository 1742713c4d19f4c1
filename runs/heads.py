"""The built-in model's heads: several tasks on one encoder, trained on open data, scored, and timed beside jieba.

    python -m runs.heads --start DIR [--research] [--shared ../shared/data]

First the encoder learns silver labels, what jieba's dictionary says of Chinese Wikipedia (`--silver`, in characters).
Open data alone (their licences let a derived model be given away) makes the model that ships; `--research` trains
another one on sets that are for research only, to measure and for one's own use. Each measurement is a row of JSON in
`--rows`; one that is there is not made again, and a run that was stopped goes on where it stood.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.finetune import SHARED
from runs.heads_data import GSD, OPEN, RESEARCH, Head, chinese, prepared, records
from runs.peer_jieba import asked, has_jieba
from runs.results import Start
from runs.rows import RESULTS, Row, Rows, bothways, log, read_records, resumed, write_records
from runs.silver import folded, write_silver


@dataclass(frozen=True)
class Plan:
    """Where things are, and how much is done."""

    shared: Path
    work: Path
    rows: Rows
    start: Start
    research: bool
    quick: bool
    length: tuple[str, ...]
    rate: float
    batch: int
    silver: int
    more: tuple[str, ...]

    @property
    def kind(self) -> str:
        return "research" if self.research else "open"

    @property
    def heads(self) -> tuple[Head, ...]:
        return RESEARCH if self.research else OPEN

    def key(self, seed: int) -> Row:
        """What a row was learnt from and how."""
        return {
            "heads": self.kind,
            "start": self.start.name,
            "weights": self.start.weights,
            "length": " ".join(self.length),
            "lr": self.rate,
            "batch": self.batch,
            "silver": self.silver,
            "more": " ".join(self.more),
            "seed": seed,
            "quick": self.quick,
        }

    def read(self, name: str, split: str) -> list[Row]:
        """The records of a set; of a quick run a few of them, evenly spread."""
        rows = read_records(self.shared / name / f"{split}.jsonl.gz")
        return rows[:: max(1, len(rows) // 120)] if self.quick else rows


def main(argv: Sequence[str] | None = None) -> int:
    """Train, score and time what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="folder of the encoder to start from")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with en/ and zh/")
    parser.add_argument("--work", type=Path, default=Path("out/heads"), help="the folder for records and runs")
    parser.add_argument(
        "--rows", type=Path, default=None, help="default: runs/results/heads.jsonl, in --work if --quick"
    )
    parser.add_argument("--research", action="store_true", help="train on the sets that are for research only")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, …; the first one's model is to ship")
    parser.add_argument("--epochs", type=int, default=None, help="default: 8, of --research 3")
    parser.add_argument("--minutes", type=float, default=None, help="of training instead")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--batch", type=int, default=32, help="records a step")
    parser.add_argument("--silver", type=int, default=2_000_000, help="characters of silver text; 0: none")
    parser.add_argument("--jieba", default=sys.executable, help="a Python that has jieba, to measure beside it")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    wanted, more = parser.parse_known_args(argv)
    from bothways.models.hub import locate

    if not (wanted.shared / "en").is_dir():
        sys.exit(f"{wanted.shared} holds no en/; name the folder of the data by --shared")
    if not (wanted.start / "config.json").is_file() and not (wanted.start / "model" / "config.json").is_file():
        sys.exit(f"--start {wanted.start} is no model's folder")
    length = ("--epochs", str(wanted.epochs or (1 if wanted.quick else 3 if wanted.research else 8)))
    plan = Plan(
        shared=wanted.shared,
        work=wanted.work,
        rows=Rows(wanted.rows or (wanted.work if wanted.quick else RESULTS) / "heads.jsonl"),
        start=Start(wanted.start.resolve().name, locate(wanted.start), ("en", "zh"), ()),
        research=wanted.research,
        quick=wanted.quick,
        length=length if wanted.minutes is None else ("--minutes", str(wanted.minutes)),
        rate=wanted.lr,
        batch=wanted.batch,
        silver=min(wanted.silver, 5000) if wanted.quick else wanted.silver,
        more=tuple(more),
    )
    with plan.rows.only_writer():
        jieba(plan, wanted.jieba)
        for seed in range(wanted.seeds):
            folder = compacted(trained(plan, seed))
            scored(plan, folder, seed)
            if seed == 0 and not plan.research:
                speed(plan, folder, wanted.jieba)
                (folder / "README.md").write_text(card(plan), encoding="utf-8")
                print(f"what ships: {folder}")
    print(f"{len(plan.rows.all())} rows in {plan.rows.path}")
    return 0


# -------------------------------------------------------------------------------------------------- training


def trained(plan: Plan, seed: int) -> Path:
    """The run of that seed, trained where it is not there yet."""
    base = plan.work / f"{plan.start.name}-{plan.start.weights}" / plan.kind
    files = {
        split: base / f"{split}.jsonl" if (base / f"{split}.jsonl").is_file() else None for split in ("train", "dev")
    }
    for split, path in files.items():
        if path is None:
            write_records(base / f"{split}.jsonl", records(plan.heads, plan.read, split, research=plan.research))
    config = base / "multi.toml"
    config.write_text("\n".join(_section(head) for head in plan.heads), encoding="utf-8")
    out = base / f"seed-{seed}"

    def train() -> Row:
        begin = with_silver(plan, base.parent) if plan.silver else plan.start.folder
        seconds = bothways(
            *("finetune", "multi", "--config", str(config), "--model", str(begin), "--out", str(out)),
            *("--train", str(base / "train.jsonl"), "--dev", str(base / "dev.jsonl"), "--seed", str(seed)),
            *(*plan.length, "--batch", str(plan.batch), "--optim.lr", f"{plan.rate:g}", *plan.more, *resumed(out)),
        )
        return {"dev": log(out)[-1]["finished"], "process_seconds": seconds}

    plan.rows.measured({"measure": "dev"} | plan.key(seed), train)
    if not (out / "model" / "config.json").is_file():
        train()
    return out


def compacted(run: Path) -> Path:
    """The run's model as it ships, in 8 bits a weight: what is scored and timed."""
    folder = run.with_name(f"{run.name}-compact")
    if not (folder / "config.json").is_file():
        bothways("convert", str(run), str(folder), "--to", "compact")
    return folder


def with_silver(plan: Plan, base: Path) -> Path:
    """The run in which the encoder learns silver labels; all heads and seeds go on from it."""
    out, records = base / f"silver-{plan.silver}", base / f"silver-{plan.silver}.jsonl"
    if not records.is_file():
        held_out = {folded("".join(row["words"])) for split in ("dev", "test") for row in plan.read(GSD, split)}
        text = plan.shared / "zh" / "rawtext" / "wikipedia_zh"
        write_silver(text, records, characters=plan.silver, without=held_out)
    if not (out / "model" / "config.json").is_file():
        bothways(
            *("finetune", "tag", "--model", str(plan.start.folder), "--train", str(records), "--out", str(out)),
            *("--epochs", "1", "--batch", str(plan.batch), "--optim.lr", f"{plan.rate:g}", *plan.more, *resumed(out)),
        )
    return out


def _section(head: Head) -> str:
    settings = "".join(f"{line}\n" for line in head.settings)
    return f'[tasks.{head.name}]\ntask = "{head.task}"\n' + (
        f"[tasks.{head.name}.settings]\n{settings}" if settings else ""
    )


# --------------------------------------------------------------------------------------------------- scoring


def scored(plan: Plan, folder: Path, seed: int) -> None:
    """Each head's scores on its tests: by its own task on given words, and as analysis finds them in raw text."""
    import bothways as package
    from bothways.train.card import hardware

    predictor: list[Any] = []

    def model() -> Any:
        if not predictor:
            predictor.append(package.load(folder))
        return predictor[0]

    for head in plan.heads:
        for name in head.tests:

            def by_task(head: Head = head, name: str = name) -> Row:
                rows = [{"task": head.name} | row for row in test_records(plan, head, name)]
                scores = model().evaluate(rows)
                told = {metric: round(scores[f"{head.name}.{metric}"], 6) for metric in head.metrics}
                return {"scores": told, "records": len(rows), "machine": hardware()}

            plan.rows.measured({"measure": "test", "head": head.name, "set": name} | plan.key(seed), by_task)
            if head.name in ("words", "zh_entities", "zh_pos"):

                def as_used(head: Head = head, name: str = name) -> Row:
                    return {"scores": analysed(plan, model(), head, name)}

                plan.rows.measured({"measure": "raw", "head": head.name, "set": name} | plan.key(seed), as_used)


def test_records(plan: Plan, head: Head, name: str) -> list[Row]:
    """The test's records for that head."""
    if head.name == "zh_pos" and not plan.research:
        return [one["zh_pos"] for one in chinese(plan.read, "test") if "zh_pos" in one]
    return [prepared(head, row) for row in plan.read(name, "test")]


def analysed(plan: Plan, predictor: Any, head: Head, name: str) -> Row:
    """F1 of what `analyze` finds in raw text, by exact places; of parts of speech, words with the right tag."""
    gold: list[set[tuple[Any, ...]]] = []
    texts: list[str] = []
    if head.name == "zh_pos":
        for one in chinese(plan.read, "test"):
            if "zh_pos" in one:
                texts.append("".join(one["words"]["words"]))
                gold.append(
                    {
                        (*place, tag)
                        for place, tag in zip(_places(one["words"]["words"]), one["zh_pos"]["tags"], strict=True)
                    }
                )
    else:
        for row in plan.read(name, "test"):
            words = row["words"] if head.name == "words" else row["tokens"]
            places = _places(words)
            texts.append("".join(words))
            if head.name == "words":
                gold.append({*places})
            else:
                from bothways.metrics.spans import spans

                gold.append({(places[a][0], places[b - 1][1], label) for label, a, b in spans(row["tags"], "BIO")})
    found: list[set[tuple[Any, ...]]] = []
    for one in predictor.analyze(texts):
        if head.name == "zh_entities":
            found.append({(entity["start"], entity["end"], entity["label"]) for entity in one["entities"]})
        else:
            extra = ("pos",) if head.name == "zh_pos" else ()
            found.append({(word["start"], word["end"], *(word[key] for key in extra)) for word in one["words"]})
    return f1(gold, found)


def f1(gold: Sequence[set[Any]], found: Sequence[set[Any]]) -> Row:
    """Precision, recall and F1 of sets."""
    right = sum(len(a & b) for a, b in zip(gold, found, strict=True))
    wanted, given = sum(map(len, gold)), sum(map(len, found))
    precision, recall = right / max(given, 1), right / max(wanted, 1)
    both = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"f1": round(both, 6), "precision": round(precision, 6), "recall": round(recall, 6)}


def _places(words: Sequence[str]) -> list[tuple[int, int]]:
    places, at = [], 0
    for word in words:
        places.append((at, at + len(word)))
        at += len(word)
    return places


def card(plan: Plan) -> str:
    """What is told of the model that ships: data and licences, how it was made, what it scores."""
    lines = [
        *("---", "language: [zh, en]", "license: cc-by-sa-4.0", "---", "", "# The built-in model", ""),
        "One small encoder for Chinese and English with heads for words, parts of speech, entities and the field of a",
        'text, all answered in one pass: `bothways analyze "…"`. There is no head for sentiment: no set of reviews at',
        "hand has a licence that lets a model made from it be given away; `runs/heads.sh --research` trains one.",
        *("", "| head | trained on | licence | scores on its test |", "|---|---|---|---|"),
    ]
    key = plan.key(0)
    for head in plan.heads:
        row = plan.rows.found({"measure": "test", "head": head.name} | key)
        told = "" if row is None else ", ".join(f"{name} {100 * row['scores'][name]:.1f}" for name in head.metrics)
        lines.append(f"| {head.name} | {head.tests[0]} | {head.licence} | {told} |")
    silver = f"It learnt first what jieba's dictionary (MIT) says of {plan.silver:,} characters of Chinese Wikipedia"
    lines += [
        "",
        *([f"{silver} (CC BY-SA)."] if plan.silver else []),
        "Scores are of this folder's weights (8 bits), one seed, words given for parts of speech and English entities.",
        "The topic head knows the thirteen fields of Chinese scientific abstracts and no others.",
        *("", "Made by `runs/heads.sh`, from an encoder whose weights' hash begins with " + f"{plan.start.weights}:"),
        *("", *(f"- {name}: {value}" for name, value in key.items() if value not in ("", False))),
    ]
    return "\n".join(lines) + "\n"


# ----------------------------------------------------------------------------------------------------- jieba


def jieba(plan: Plan, python: str) -> None:
    """jieba's words on the same tests."""
    if not has_jieba(python):
        print(f"skipped: jieba's rows, since {python} has no jieba; name one that has by --jieba", file=sys.stderr)
        return
    for head in plan.heads:
        for name in head.tests if head.name == "words" else ():

            def measure(name: str = name) -> Row:
                rows = [row["words"] for row in plan.read(name, "test")]
                said = asked(python, "words", ["".join(words) for words in rows])
                scores = f1([{*_places(words)} for words in rows], [{*_places(words)} for words in said["words"]])
                return {"scores": scores, "records": len(rows), "version": said["version"]}

            plan.rows.measured({"measure": "jieba", "head": "words", "set": name, "quick": plan.quick}, measure)


def speed(plan: Plan, folder: Path, python: str) -> None:
    """Characters a second of words, parts of speech and entities in one pass, beside jieba.posseg, in turns."""
    if not has_jieba(python):
        return
    import os

    import bothways as package
    from bothways.train.card import hardware

    texts = ["".join(row["words"]) for split in ("test", "dev") for row in plan.read(GSD, split)]
    characters, cores = sum(map(len, texts)), len(os.sched_getaffinity(0))

    def measure(precision: str) -> Row:
        analyzer = package.load(folder, precision=precision).analyzer()
        analyzer.predict(texts[:64])
        ours, alone, parallel = [], [], []
        for _ in range(5):
            begun = time.perf_counter()
            analyzer.predict(texts)
            ours.append(characters / (time.perf_counter() - begun))
            alone.append(characters / asked(python, "tags", texts)["seconds"])
            parallel.append(characters / asked(python, "tags", texts, cores=cores)["seconds"])
        best = [max(pair) for pair in zip(alone, parallel, strict=True)]
        return {
            "characters": characters,
            "cores": cores,
            "characters_per_second": round(statistics.median(ours)),
            "jieba_posseg": round(statistics.median(alone)),
            "jieba_posseg_parallel": round(statistics.median(parallel)),
            "ratio": round(statistics.median(a / b for a, b in zip(ours, best, strict=True)), 3),
            "machine": hardware(),
        }

    for precision in ("float32", "bfloat16", "int8"):
        plan.rows.measured({"measure": "speed", "precision": precision} | plan.key(0), lambda p=precision: measure(p))


if __name__ == "__main__":
    sys.exit(main())
