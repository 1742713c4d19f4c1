"""The built-in model's heads: several tasks on one encoder, trained on open data, scored, and timed beside jieba.

    python -m runs.heads --start builtin [--minutes 15] [--research] [--shared ../shared/data]

Beside them, in the same steps, the encoder learns silver labels, what jieba's dictionary says of Chinese Wikipedia
(`--silver`, in characters), goes on guessing masked words of raw text (`--text`), answers questions made from it
(`--questions`), and learns the vectors that all-MiniLM-L6-v2 has for English sentences, for these and their Chinese
translations (`--vectors`), those that it has for English words (`--english`), and which sentence belongs to which
passage (`--search`), so that one folder fills masks, analyses, gives vectors and is a start for fine-tuning. All in one
run, for warming up a second time undoes what the first decay had won (LOG.md). Open data alone (their licences let a
derived model be given away) makes the model that ships, in `--work`/builtin; `--research` trains another one on sets
that are for research only, to measure and for one's own use. Other flags go to `bothways finetune`, instead of Muon and
a rate that falls late. Each measurement is a row of JSON in `--rows`; one that is there is not made again, and a run
that was stopped goes on where it stood.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.finetune import minilm
from runs.cloze import questions
from runs.heads_card import card
from runs.heads_data import (
    ENGLISH,
    GSD,
    NOVELS,
    OPEN,
    QUESTIONS,
    RAW,
    RESEARCH,
    SEARCH,
    SILVER,
    TEXT,
    VECTORS,
    WEIGHTS,
    Head,
    chinese,
    held_out,
    prepared,
    raw_records,
    records,
    section,
)
from runs.heldout import heldout
from runs.lessons import passages, translations
from runs.lessons import questions as asking
from runs.peer_jieba import asked, has_jieba
from runs.plan import Plan, finetune, flags, planned
from runs.results import Start
from runs.rows import Row, bothways, log, read_records, write_records
from runs.silver import folded, raw_texts, write_silver

from bothways.data.records import read_records as table_records
from bothways.models.reading import Advice

# What is learnt beside open heads: a name, how much, and what.
BESIDE = (
    ("silver", 2_000_000, "characters of silver text"),
    ("text", 5_000_000, "Chinese characters of raw text, and thrice as many English"),
    ("vectors", 15_000, "sentences of English Wikipedia beside the translated ones"),
    ("english", 8_000_000, "characters of English whose words' vectors are learnt"),
    ("search", 24_000, "sentences with what stands around them, half of each language"),
    ("questions", 2000, "made from raw text, of each language"),
)
QUICK = {"silver": 5000, "text": 2000, "vectors": 100, "english": 2000, "search": 100, "questions": 50}
OPTIM = "--optim.method muon --optim.schedule stable --optim.decay 0.7 --optim.warmup 0.02 --optim.dropout 0.05"
LESSONS = {SILVER.name, VECTORS.name, ENGLISH.name, SEARCH.name, QUESTIONS.name}  # what the encoder alone is taught by
# LOG.md, 2026-11-30: ChnSentiCorp 93.1 % instead of AdamW's 91.7; writers learn more in minutes by AdamW.
ADVICE = Advice("muon", 3e-4, 5e-4)
HELDOUT_TOKENS = 100_000  # of raw text in each language


@dataclass(frozen=True)
class HeadsPlan(Plan):
    """What is trained, too."""

    start: Start
    research: bool
    only: tuple[str, ...]
    epochs: int
    minutes: float | None
    rate: float
    batch: int
    silver: int
    text: int
    vectors: int
    english: int
    search: int
    questions: int
    more: tuple[str, ...]

    @property
    def kind(self) -> str:
        return "research" if self.research else "open"

    @property
    def heads(self) -> tuple[Head, ...]:
        heads = RESEARCH if self.research else OPEN
        return tuple(head for head in heads if not self.only or head.name in self.only)

    @property
    def beside(self) -> list[tuple[Head, int]]:
        """What is learnt beside the heads, and how much of it there is."""
        every = (
            (SILVER, self.silver),
            (TEXT, self.text),
            (VECTORS, self.vectors),
            (ENGLISH, self.english),
            (SEARCH, self.search),
            (QUESTIONS, self.questions),
        )
        return [(_with_teacher(head), amount) for head, amount in every if amount]

    @property
    def shares(self) -> str:
        """The weights of what is learnt beside the heads, whose own are 1."""
        return ", ".join(f"{head.name} {WEIGHTS.get(head.name, 1.0):g}" for head, _ in self.beside)

    @property
    def base(self) -> Path:
        """The folder of what is made from this start."""
        return self.work / f"{self.start.name}-{self.start.weights}"

    def key(self, seed: int) -> Row:
        """What a row was learnt from and how."""
        return {
            "heads": self.kind,
            "start": self.start.name,
            "weights": self.start.weights,
            "length": f"{self.epochs} epochs" if self.minutes is None else f"{self.minutes:g} minutes",
            "lr": self.rate,
            "batch": self.batch,
            "silver": self.silver,
            "text": self.text,
            "vectors": self.vectors,
            "english": self.english,
            "search": self.search,
            "questions": self.questions,
            "shares": self.shares,
            "more": " ".join(self.more),
            "seed": seed,
            "quick": self.quick,
        } | ({"only": list(self.only)} if self.only else {})

    def read(self, name: str, split: str) -> list[Row]:
        """The records of a set; of a quick run a few of them, evenly spread."""
        rows = read_records(self.shared / name / f"{split}.jsonl.gz")
        return rows[:: max(1, len(rows) // 120)] if self.quick else rows


def _with_teacher(head: Head) -> Head:
    return replace(head, settings=(f'teacher = "{minilm()}"', *head.settings)) if head is ENGLISH else head


def main(argv: Sequence[str] | None = None) -> int:
    """Train, score and time what is missing."""
    parser = flags(__doc__, "heads", shared="en/ and zh/", seeds=1)
    parser.add_argument("--start", required=True, help="the encoder to start from: a folder, a run, or builtin")
    parser.add_argument("--research", action="store_true", help="train on the sets that are for research only")
    names = [head.name for head in RESEARCH]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=[], metavar="HEAD", help=f"of --research: {', '.join(names)}"
    )
    parser.add_argument("--epochs", type=int, default=None, help="default: 3")
    parser.add_argument(
        "--minutes", type=float, default=None, help="of training in all instead, silver labels included"
    )
    parser.add_argument("--lr", type=float, default=6e-4, help="learning rate")
    parser.add_argument("--batch", type=int, default=128, help="records a step")
    for name, amount, what in BESIDE:
        parser.add_argument(f"--{name}", type=int, default=None, help=f"{what}; default: {amount:,}, of --research 0")
    parser.add_argument("--jieba", default=sys.executable, help="a Python that has jieba, to measure beside it")
    wanted, more = parser.parse_known_args(argv)
    from bothways.models.hub import locate

    if not (wanted.shared / "en").is_dir():
        sys.exit(f"{wanted.shared} holds no en/; name the folder of the data by --shared")
    if wanted.only and not wanted.research:
        sys.exit("--only is for --research: the heads that ship are trained together")
    folder = Path(wanted.start)
    if wanted.start != "builtin" and not any((folder / at / "config.json").is_file() for at in (".", "model")):
        sys.exit(f"--start {wanted.start} is no model's folder")
    common = planned(wanted, "heads")
    beside = {}
    for name, amount, _ in BESIDE:
        asked_for = getattr(wanted, name)
        beside[name] = (0 if wanted.research else amount) if asked_for is None else asked_for
        beside[name] = min(beside[name], QUICK[name]) if wanted.quick else beside[name]
    plan = HeadsPlan(
        **{name: getattr(common, name) for name in common.__dataclass_fields__},
        start=Start(folder.resolve().name, locate(wanted.start), ("en", "zh"), ()),
        research=wanted.research,
        only=tuple(name for name in names if name in wanted.only),
        epochs=wanted.epochs or (1 if wanted.quick else 3),
        minutes=wanted.minutes,
        rate=wanted.lr,
        batch=wanted.batch,
        **beside,
        more=tuple(more) or tuple(OPTIM.split()),
    )
    with plan.rows.only_writer():
        jieba(plan, wanted.jieba)
        for seed in range(plan.seeds):
            folder = compacted(trained(plan, seed))
            scored(plan, folder, seed)
            if plan.text:
                remembered(plan, folder, seed)
            if seed == 0 and not plan.research:
                speed(plan, folder, wanted.jieba)
                print(f"what ships: {shipped(plan, folder)}")
    print(f"{len(plan.rows.all())} rows in {plan.rows.path}")
    return 0


# -------------------------------------------------------------------------------------------------- training


def trained(plan: HeadsPlan, seed: int) -> Path:
    """The run of that seed, trained where it is not there yet: the heads and what is learnt beside them together."""
    base = plan.base / "-".join((plan.kind, *plan.only))
    out, dev = base / f"seed-{seed}", base / "dev.jsonl"
    amounts = "-".join(str(getattr(plan, name)) for name, *_ in BESIDE)
    train = base / f"train-{amounts}.jsonl"
    for split, path in (("train", train), ("dev", dev)):
        if not path.is_file():
            beside = (silver, raw_text, taught, english, searched, questioned) if split == "train" else ()
            more = [row for make in beside for row in make(plan)]
            write_records(path, records(plan.heads, plan.read, split, research=plan.research) + more)
    config = out.with_suffix(".toml")
    every = (*plan.heads, *(head for head, _ in plan.beside))
    config.write_text("\n".join(section(head, WEIGHTS.get(head.name, 1.0)) for head in every), encoding="utf-8")

    def learn() -> Row:
        made = finetune(
            "multi",
            model=plan.start.folder,
            train=train,
            dev=dev,
            out=out,
            rate=plan.rate,
            epochs=plan.epochs,
            seed=seed,
            minutes=plan.minutes,
            more=("--config", str(config), "--batch", str(plan.batch), *plan.more),
        )
        return made | {"tokens": sum(entry["tokens"] for entry in log(out) if "step" in entry)}

    plan.rows.measured({"measure": "dev"} | plan.key(seed), learn)
    if not (out / "model" / "config.json").is_file():
        learn()
    return out


def silver(plan: HeadsPlan) -> list[Row]:
    """What jieba's dictionary says of raw Chinese text; none of it has a sentence of the Chinese tests or their dev."""
    if not plan.silver:
        return []
    path = plan.base / f"silver-{plan.silver}.jsonl"
    if not path.is_file():
        text = plan.shared / RAW["zh"][0]
        write_silver(text, path, characters=plan.silver, without=held_out(plan.read))
    return [{"task": SILVER.name} | row for row in read_records(path)]


def raw_text(plan: HeadsPlan) -> list[Row]:
    """Raw text for the masked-LM head; none with a sentence that the Chinese tests or their dev have."""
    if not plan.text:
        return []
    path = plan.base / f"raw-{plan.text}.jsonl"
    if not path.is_file():
        write_records(path, raw_records(plan.shared, plan.text, held_out(plan.read)))
    return read_records(path)


def taught(plan: HeadsPlan) -> list[Row]:
    """English sentences, many with a Chinese translation, and the teacher's vectors of them, in 5 digits."""
    if not plan.vectors:
        return []
    plain, path = (plan.base / f"{name}-{plan.vectors}.jsonl" for name in ("sentences", "taught"))
    if not path.is_file():
        rows = translations(plan.shared, "train", plan.vectors)
        write_records(plain, rows[:: max(1, len(rows) // 200)] if plan.quick else rows)
        vectors = plain.with_suffix(".parquet")
        bothways("embed", str(minilm()), "--data", str(plain), "--out", str(vectors), "--quiet")
        write_records(
            path,
            [
                {"task": VECTORS.name} | record.fields | {"vector": [round(x, 5) for x in record.fields["vector"]]}
                for record in table_records(vectors)
            ],
        )
    return read_records(path)


def english(plan: HeadsPlan) -> list[Row]:
    """English texts, a third of them from novels; their teacher says the rest when they are read."""
    if not plan.english:
        return []
    folder, _, longest = RAW["en"]
    parts = ((folder, 2 * plan.english // 3), (NOVELS, plan.english // 3))
    return [
        {"task": ENGLISH.name, "text": text}
        for folder, characters in parts
        for text in raw_texts(plan.shared / folder, characters=characters, without=set(), longest=longest // 2)
    ]


def searched(plan: HeadsPlan) -> list[Row]:
    """Sentences with what stands around them, and questions with their passages; none that the Chinese tests have."""
    if not plan.search:
        return []
    without = held_out(plan.read)
    rows = passages(plan.shared, "train", plan.search, without)
    asked = asking(plan.shared, "train")
    few = asked[:: max(1, 4 * len(asked) // plan.search)]
    fresh = [row for row in few if not any(sentence in folded(row["text_b"]) for sentence in without)]
    return [{"task": SEARCH.name} | row for row in rows + fresh]


def questioned(plan: HeadsPlan) -> list[Row]:
    """Questions made from raw text of both languages."""
    if not plan.questions:
        return []
    path = plan.base / f"questions-{plan.questions}.jsonl"
    if not path.is_file():
        made = [
            {"task": QUESTIONS.name} | row
            for language, (folder, *_) in RAW.items()
            for row in questions(plan.shared / folder, count=plan.questions, chinese=language == "zh", seed=1)
        ]
        write_records(path, made)
    return read_records(path)


def compacted(run: Path) -> Path:
    """The run's model as it ships, in 8 bits a weight: what is scored and timed.

    Without what taught the encoder alone: silver labels, questions, and vectors, whose part has no weights, for any
    model gives them.
    """
    from bothways.models.model import load, save
    from bothways.nn.network import Network
    from bothways.tasks.merging import parted
    from bothways.tasks.multi import MultiTask

    folder = run.with_name(f"{run.name}-compact")
    if not (folder / "config.json").is_file():
        model = load(run)
        assert isinstance(model.task, MultiTask)
        parts = {name: part for name, part in model.task.parts.items() if name not in LESSONS}
        heads = {name: model.network.head(name) for name in model.network.heads if parted(name)[0] in parts}
        task = MultiTask(parts, {name: model.task.weights[name] for name in parts})
        kept = replace(model, task=task, network=Network(model.network.encoder, heads), advice=ADVICE)
        save(kept, folder, compact=True)
    return folder


def shipped(plan: HeadsPlan, folder: Path) -> Path:
    """The folder that goes into the package, with its card."""
    target = plan.work / "builtin"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    (target / "README.md").write_text(
        card(plan.rows, plan.key(0), plan.heads, plan.start.folder, ADVICE), encoding="utf-8"
    )
    return target


# --------------------------------------------------------------------------------------------------- scoring


def scored(plan: HeadsPlan, folder: Path, seed: int) -> None:
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


def remembered(plan: HeadsPlan, folder: Path, seed: int) -> None:
    """How well masked words of held-out Wikipedia are guessed, by language: before there were heads, and now."""
    before = {"start": plan.start.name, "weights": plan.start.weights, "quick": plan.quick}
    tokens = HELDOUT_TOKENS // 50 if plan.quick else HELDOUT_TOKENS
    for language, (text, _, _) in RAW.items():
        for model, key in ((plan.start.folder, before), (folder, plan.key(seed))):
            measure = "masked" if model == folder else "masked before"

            def guessed(model: Path = model, text: str = text) -> Row:
                return {"scores": heldout(model, plan.shared / text / "dev.txt.xz", tokens)}

            plan.rows.measured({"measure": measure, "language": language} | key, guessed)


def test_records(plan: HeadsPlan, head: Head, name: str) -> list[Row]:
    """The test's records for that head."""
    if head.name == "zh_pos" and not plan.research:
        return [one["zh_pos"] for one in chinese(plan.read, "test") if "zh_pos" in one]
    return [prepared(head, row) for row in plan.read(name, "test")]


def analysed(plan: HeadsPlan, predictor: Any, head: Head, name: str) -> Row:
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


# ----------------------------------------------------------------------------------------------------- jieba


def jieba(plan: HeadsPlan, python: str) -> None:
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


def speed(plan: HeadsPlan, folder: Path, python: str) -> None:
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
