"""The first measurements of LOG.md: Chinese text to vocabulary, pre-training, fine-tuning and scores, beside TF-IDF.

    python -m runs.spine --shared ../shared/data

Each measurement is a row of JSON in `--rows`; one that is there is not made again, and a run that was stopped goes
on where it stood. `python -m runs.table` prints the rows as LOG.md shows them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runs.plan import Plan, finetune, flags, planned
from runs.rows import Row, bothways, log, read_records, resumed, write_records
from runs.tfidf import tfidf

REVIEWS, MAILS = "zh/sentiment/chnsenticorp", "zh/spam/ccert_email"
RATES = (3e-4, 1e-3)  # a tiny model wants more than the 5e-5 that suits a base one; dev chooses, by one seed
EPOCHS = {REVIEWS: 3, MAILS: 2}  # mails are long and soon learnt


@dataclass(frozen=True)
class SpinePlan(Plan):
    """How long is pre-trained, too."""

    minutes: float = 10.0

    def text(self) -> list[Path]:
        """The raw text to learn from."""
        folder = self.shared / "zh" / "rawtext"
        return sorted(folder.glob("cluecorpussmall_sample/train-*" if self.quick else "*/train-*"))

    def split(self, data: str, name: str) -> Path:
        """A split's file; of a quick run, some 320 of its records, evenly spread."""
        whole = self.shared / data / f"{name}.jsonl.gz"
        if not self.quick:
            return whole
        part = self.work / "quick" / data / f"{name}.jsonl"
        if not part.is_file():
            rows = read_records(whole)
            write_records(part, rows[:: max(1, len(rows) // 320)])
        return part


def main(argv: Sequence[str] | None = None) -> int:
    """Make all rows that are missing."""
    parser = flags(__doc__, "spine", shared="zh/rawtext and the labelled sets")
    parser.add_argument("--minutes", type=float, default=10.0, help="of pre-training")
    wanted = parser.parse_args(argv)
    plan = SpinePlan(**vars(planned(wanted, "spine")), minutes=wanted.minutes)
    if not plan.text():
        sys.exit(f"{plan.shared} holds no zh/rawtext/*/train-*; name the folder of the data by --shared")
    with plan.rows.only_writer():
        learn_from_text(plan)
        reviews(plan)
        mails(plan)
    return 0


# ----------------------------------------------------------------------------------------------------- from text


def learn_from_text(plan: SpinePlan) -> None:
    """A vocabulary of 16,000 pieces, and a tiny model pre-trained for so many minutes."""
    text = [str(path) for path in plan.text()]
    vocabulary, pretrained = plan.work / "vocab", plan.work / "pretrained"

    def vocab() -> Row:
        shutil.rmtree(vocabulary, ignore_errors=True)
        size = "2000" if plan.quick else "16000"
        seconds = bothways("vocab", "--text", *text, "--size", size, "--out", str(vocabulary))
        return {"pieces": len((vocabulary / "vocab.txt").read_text(encoding="utf-8").splitlines()), "seconds": seconds}

    def pretrain() -> Row:
        held_out = str(plan.shared / "zh" / "rawtext" / "wikipedia_zh" / "dev.txt.xz")
        length = ("--steps", "20") if plan.quick else ("--minutes", str(plan.minutes))
        seconds = bothways(
            *("pretrain", "--text", *text, "--dev", held_out, "--model", "tiny", "--vocab", str(vocabulary)),
            # The defaults when LOG.md's rows were made.
            *("--optim.method", "adamw", "--optim.lr", "1e-3", "--optim.dropout", "none"),
            *(*length, "--seed", "0", "--out", str(pretrained), *resumed(pretrained)),
        )
        return {**log(pretrained)[-1]["finished"], "process_seconds": seconds}

    plan.rows.measured({"measure": "vocab", "language": "zh"}, vocab)
    plan.rows.measured({"measure": "pretrain", "model": "tiny", "minutes": plan.minutes, "seed": 0}, pretrain)


def untrained(plan: SpinePlan, seed: int) -> Path:
    """A model of the pre-trained one's shape and vocabulary, with random weights of that seed."""
    from bothways.models.model import fresh, load, save, seed_everything

    folder = plan.work / "untrained" / f"seed-{seed}"
    if not folder.is_dir():
        same = load(plan.work / "pretrained")
        seed_everything(seed)
        save(fresh(same.config, same.tokenizer, None), folder)
    return folder


# ------------------------------------------------------------------------------------------------ labelled records


def reviews(plan: SpinePlan) -> None:
    """ChnSentiCorp from the pre-trained and the untrained model, and TF-IDF; a third of its test stands in train."""
    tests = _tests(plan, REVIEWS, ["test"])
    seen = {row["text"] for row in read_records(plan.split(REVIEWS, "train"))}
    tests["test_not_in_train"] = [row for row in tests["test"] if row["text"] not in seen]
    baselines(plan, REVIEWS, tests)
    for start in ("pretrained", "untrained"):
        for rate in RATES:
            finetuned(plan, REVIEWS, tests, start, rate, seed=0)
        rate = best_rate(plan.rows.all(), REVIEWS, start)
        for seed in range(1, plan.seeds):
            finetuned(plan, REVIEWS, tests, start, rate, seed)


def mails(plan: SpinePlan) -> None:
    """CCERT's mails from the pre-trained model, at the rate that suited the reviews' dev records, and TF-IDF."""
    tests = _tests(plan, MAILS, ["test", "test_published"])
    baselines(plan, MAILS, tests)
    rate = best_rate(plan.rows.all(), REVIEWS, "pretrained")
    for seed in range(plan.seeds):
        finetuned(plan, MAILS, tests, "pretrained", rate, seed)


def baselines(plan: SpinePlan, data: str, tests: dict[str, list[Row]]) -> None:
    """TF-IDF of characters and of words."""
    kinds: tuple[Literal["characters", "words"], ...] = ("characters", "words")
    for features in kinds:
        train, dev = (read_records(plan.split(data, name)) for name in ("train", "dev"))
        key = {"measure": "tfidf", "data": data, "features": features}
        plan.rows.measured(key, lambda train=train, dev=dev, features=features: tfidf(train, dev, tests, features))


def finetuned(plan: SpinePlan, data: str, tests: dict[str, list[Row]], start: str, rate: float, seed: int) -> Row:
    """One fine-tuning by the command line with its defaults but for the rate, and its scores."""

    def measure() -> Row:
        import bothways as package

        model = plan.work / "pretrained" if start == "pretrained" else untrained(plan, seed)
        out = plan.work / "finetuned" / Path(data).name / f"{start}-{rate:g}-seed-{seed}"
        row = finetune(
            "classify",
            model=model,
            train=plan.split(data, "train"),
            dev=plan.split(data, "dev"),
            out=out,
            rate=rate,
            epochs=EPOCHS[data],
            seed=seed,
        )
        predictor = package.load(out)
        scores = {name: predictor.evaluate(rows) for name, rows in tests.items()}
        names = ("accuracy", "macro_f1", "pr_auc", "records")
        told = {split: {name: score[name] for name in names} for split, score in scores.items()}
        return row | told

    return plan.rows.measured({"measure": "finetune", "data": data, "start": start, "lr": rate, "seed": seed}, measure)


def best_rate(rows: Sequence[Row], data: str, start: str) -> float:
    """The rate with the best accuracy of the first seed on dev; the other seeds follow at that rate."""
    dev: dict[float, float] = {}
    for row in rows:
        if (row["measure"], row.get("data"), row.get("start"), row.get("seed")) == ("finetune", data, start, 0):
            dev[row["lr"]] = row["dev"]["accuracy"]
    return max(dev, key=lambda rate: dev[rate])


def _tests(plan: SpinePlan, data: str, names: Sequence[str]) -> dict[str, list[Row]]:
    return {name: read_records(plan.split(data, name)) for name in names}


if __name__ == "__main__":
    sys.exit(main())
