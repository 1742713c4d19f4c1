"""The rows of `runs/results` as the tables of LOG.md: `python -m runs.table` prints them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.finetune import mean_and_deviation
from benchmarks.finetune import table as finetune_table
from runs.rows import RESULTS, Row, Rows
from runs.spine import MAILS, REVIEWS, best_rate


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables whose rows are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spine", type=Path, default=RESULTS / "spine.jsonl")
    parser.add_argument("--finetune", type=Path, default=RESULTS / "finetune.jsonl")
    wanted = parser.parse_args(argv)
    rows = Rows(wanted.spine).all()
    parts = [_from_text(rows)]
    reviews = {"test accuracy": ("test", "accuracy"), "not in train": ("test_not_in_train", "accuracy")}
    parts.append(_scores(rows, REVIEWS, "ChnSentiCorp", reviews))
    metrics, splits = {"accuracy": "accuracy", "macro-F1": "macro_f1", "PR-AUC": "pr_auc"}, ("test", "test_published")
    mails = {f"{split}: {told}": (split, name) for split in splits for told, name in metrics.items()}
    parts.append(_scores(rows, MAILS, "CCERT e-mail", mails))
    if timed := Rows(wanted.finetune).all():
        parts.append("Fine-tuning all-MiniLM-L6-v2 (test score: mean ± sample deviation):\n\n" + finetune_table(timed))
    print("\n\n".join(part for part in parts if part))
    return 0


def _from_text(rows: Sequence[Row]) -> str:
    """What vocabulary and pre-training came to."""
    lines = []
    for row in rows:
        if row["measure"] == "vocab":
            lines.append(f"Vocabulary: {row['pieces']:,} pieces in {row['seconds']:.0f} s.")
        if row["measure"] == "pretrain":
            scores = ", ".join(
                f"{name.replace('_', ' ')} {row[name]:.3f}"
                for name in row
                if name.endswith(("_loss", "_accuracy")) and isinstance(row[name], float)
            )
            lines.append(
                f"Pre-training, {row['model']}, {row['minutes']:g} minutes: {row['steps']:,} steps, "
                f"{row['tokens']:,} tokens; held-out {scores}."
            )
    return "\n".join(lines)


def _scores(rows: Sequence[Row], data: str, title: str, columns: dict[str, tuple[str, str]]) -> str:
    """Each system's scores in percent: TF-IDF, and fine-tuning at the rate that dev chose."""
    own = [row for row in rows if row.get("data") == data]
    if not own:
        return ""
    lines = [f"| {title} | chosen on dev | seeds | {' | '.join(columns)} |", "|---" * (3 + len(columns)) + "|"]
    for row in own:
        if row["measure"] == "tfidf":
            chosen = f"{row['ngrams'][0]}–{row['ngrams'][1]}-grams, C {row['C']:g}"
            lines.append(_line(f"TF-IDF, {row['features']}", chosen, [row], columns))
    tuned = [row for row in own if row["measure"] == "finetune"]
    for start in sorted({row["start"] for row in tuned}, reverse=True):
        rate = best_rate(rows, data, start)
        seeds = [row for row in tuned if (row["start"], row["lr"]) == (start, rate)]
        lines.append(_line(f"tiny, {start}", f"lr {rate:g}", seeds, columns))
    return "\n".join(lines)


def _line(system: str, chosen: str, seeds: Sequence[Row], columns: dict[str, tuple[str, str]]) -> str:
    cells = [mean_and_deviation([row[split][name] for row in seeds]) for split, name in columns.values()]
    counted = len(seeds) if seeds[0]["measure"] == "finetune" else "–"  # nothing is random in TF-IDF
    return f"| {system} | {chosen} | {counted} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
