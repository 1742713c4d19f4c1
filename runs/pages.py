"""The rows of `runs.results` as docs/results.md, and those of `runs.generate` as docs/generation.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from benchmarks.finetune import mean_and_deviation
from benchmarks.page import machine
from runs.rows import Row
from runs.sets import SETS, DataSet

HEAD = """# Results

Every task on real Chinese and English data, beside what needs no model and what others have published.

    command    {command}
    machine    {machines}

Scores are percentages on test records; of models, means ± sample deviation over the seeds. A model is fine-tuned with
the defaults (32 records a step, linear decay, AdamW or what the model advises) but for the epochs told below each table
and the learning rate; where several rates were tried, which is told there too, it is the best on dev by seed 0. Of the
epochs, dev chooses the best. The gap is the distance of the first score to the published one, in points; those are
scores of models of 110 million parameters and more, mostly pre-trained on billions of words. Sets that would take long
are learnt from a part, drawn at random (seed 0). Translation, headlines, dialogue and written answers are in
[generation.md](generation.md).
"""
TITLES = {
    "classify": "Classification",
    "pair": "Pairs: inference and paraphrase",
    "similarity": "Similarity",
    "tag": "Tagging: entities, chunks, parts of speech",
    "segment": "Chinese word segmentation",
    "roles": "Semantic roles",
    "slots": "Intents and slots",
    "qa": "Questions",
    "choice": "Choices",
}
NAMES = {
    "accuracy": "accuracy", "macro_f1": "macro F1", "pr_auc": "PR-AUC", "mcc": "MCC", "f1": "F1", "em": "EM",
    "token_accuracy": "token accuracy", "precision": "precision", "recall": "recall", "sighan_f1": "F1 (SIGHAN)",
    "r_oov": "R_OOV", "r_iv": "R_IV", "slot_f1": "slot F1", "intent_accuracy": "intent accuracy",
    "frame_accuracy": "frame accuracy", "drcd_f1": "F1 (DRCD)", "drcd_em": "EM (DRCD)", "pearson": "Pearson",
    "spearman": "Spearman", "bleu": "BLEU", "chrf": "chrF", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L", "distinct1": "distinct-1", "distinct2": "distinct-2", "perplexity": "perplexity",
}  # fmt: skip
AS_THEY_ARE = {"bleu", "chrf", "perplexity"}  # all others are shares, told in percent
BUILTIN, EARLIER, UNTRAINED = "builtin", "earlier builtin", "-untrained"  # how names of starts begin and end
BY_PEER = ", by transformers"  # how the name of a start ends whose training is the peer's
COMMAND = "make results   (python -m runs.results --shared ../shared/data)"


def page(
    rows: Sequence[Row],
    learnt: Mapping[str, Row],
    *,
    sets: Sequence[DataSet] | None = None,
    head: str = HEAD,
    command: str = COMMAND,
    titles: Mapping[str, str] = TITLES,
    builtin: str | None = None,
) -> str:
    """The whole page, of the rows that were learnt as `learnt` says of each set now.

    What has no rows yet is left out, and told at the end. `builtin` says which weights the built-in model has now: rows
    of others stay only where it has none, and say so.
    """
    known = SETS if sets is None else sets
    rows = [row for row in rows if row["learnt"] == learnt.get(row["set"])]
    rows = [dated for data in known for dated in _dated([row for row in rows if row["set"] == data.name], builtin)]
    signatures = "; ".join(dict.fromkeys(one for row in rows for one in row.get("signatures", ())))
    parts = [head.format(command=command, machines=_machines(rows), rates=_rates(rows), signatures=signatures)]
    for group, title in titles.items():
        own = [data for data in known if data.group == group and any(row["set"] == data.name for row in rows)]
        if own:
            parts += [f"## {title}\n", _table(rows, own), "\n".join(_note(rows, data, learnt) for data in own) + "\n"]
            parts += [samples for data in own if (samples := _samples(rows, data))]
    measured = {row["set"] for row in rows if row["measure"] == "test"}
    if any(row.get("start", "").startswith(EARLIER) for row in rows):
        parts.append(f"“{EARLIER}” is the built-in model of an earlier version; its rows wait to be measured anew.\n")
    if missing := [data.name for data in known if data.name in learnt and data.name not in measured]:
        parts.append(f"Not measured from any model yet: {', '.join(missing)}.\n")
    return "\n".join(parts)


def _dated(rows: Sequence[Row], builtin: str | None) -> list[Row]:
    """A set's rows; of the built-in model those of its weights now, else the others under another name.

    Of its untrained shape, which has other weights, those from before today's first row have the other name too, until
    there are others.
    """

    def built_in(row: Row) -> bool:
        return row.get("start", "").startswith(BUILTIN)

    if builtin is None:
        return list(rows)
    now = next((at for at, row in enumerate(rows) if built_in(row) and row["weights"] == builtin), len(rows))

    anew = any(built_in(row) and UNTRAINED in row["start"] for row in rows[now:])

    def dated(at: int, row: Row) -> Row | None:
        if not built_in(row) or row["weights"] == builtin:
            return row
        if UNTRAINED in row["start"]:  # of the shape that was the built-in model's at that time
            if anew and at < now:
                return None
            earlier = at < now
        elif now < len(rows):
            return None
        else:
            earlier = True
        return row | {"start": EARLIER + row["start"].removeprefix(BUILTIN)} if earlier else row

    return [row for at, one in enumerate(rows) if (row := dated(at, one)) is not None]


def systems(rows: Sequence[Row], data: DataSet) -> dict[str, list[Row]]:
    """The rows with scores of each system on one set: baselines, then models at the rate that dev chose.

    Of a model that was measured with several weights, the latest.
    """
    own = [row for row in rows if row["set"] == data.name]
    found = {row["system"]: [row] for row in own if row["measure"] == "baseline"}
    for start in dict.fromkeys(row["start"] for row in own if row["measure"] == "test"):
        latest = [row for row in own if row.get("start") == start]
        latest = [row for row in latest if row["weights"] == latest[-1]["weights"]]
        rate = best_rate(latest, data)
        found[start] = [row for row in latest if (row["measure"], row["lr"]) == ("test", rate)]
    return found


def best_rate(rows: Sequence[Row], data: DataSet) -> float:
    """The rate with the best first score of the first seed on dev."""
    tried = {row["lr"]: row["dev"][data.metrics[0]] for row in rows if (row["measure"], row["seed"]) == ("dev", 0)}
    return max(tried, key=lambda rate: tried[rate])


def _table(rows: Sequence[Row], sets: Sequence[DataSet]) -> str:
    metrics = list(dict.fromkeys(name for data in sets for name in data.metrics))
    gap = any(data.published for data in sets)
    heads = ["set", "test", "system", "lr", "seeds", *(NAMES[name] for name in metrics), *(["gap"] if gap else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for data in sets:
        found = systems(rows, data)
        tests = dict.fromkeys(test for seeds in found.values() for row in seeds for test in row["tests"])
        for test in tests:
            where = [data.name, test.replace("_", " ")]
            for system, seeds in found.items():
                lines.append(_line(where, system, seeds, data, test, metrics, gap=gap))
                where = ["", ""]
            if known := data.published.get(test):
                shown = [known.told if name == data.metrics[0] else "" for name in metrics]
                lines.append(f"| | | published | | | {' | '.join(shown)} | |")
    return "\n".join(lines) + "\n"


def _line(
    where: Sequence[str],
    system: str,
    seeds: Sequence[Row],
    data: DataSet,
    test: str,
    metrics: Sequence[str],
    *,
    gap: bool,
) -> str:
    """One system's scores on one test."""
    cells = []
    for name in metrics:
        scale = 100 if name in AS_THEY_ARE else 1
        values = [row["tests"][test][name] / scale for row in seeds if name in row["tests"][test]]
        cells.append(mean_and_deviation(values) if name in data.metrics and values else "–")
    model, told = "lr" in seeds[0], ""
    known = data.published.get(test)
    if model and known is not None and known.score is not None:
        told = f"{100 * mean(row['tests'][test][data.metrics[0]] for row in seeds) - known.score:+.1f}"
    rate = f"{seeds[0]['lr']:g}" if model else "–"
    counted = str(len(seeds)) if model else "–"  # nothing is random in a baseline
    return f"| {' | '.join([*where, system, rate, counted, *cells, *([told] if gap else [])])} |"


def _note(rows: Sequence[Row], data: DataSet, learnt: Mapping[str, Row]) -> str:
    """What a set was learnt from, what is odd about it, whose the published score is."""
    told = [f"train {_size(data, 'train', learnt)}"]
    own = [row for row in rows if row["set"] == data.name]
    for test, scores in next((row["tests"] for row in own if "tests" in row), {}).items():
        limit = learnt[data.name].get(test, {}).get("limit")
        told.append(f"{test.replace('_', ' ')} {scores['records']:,} records{' drawn at random' if limit else ''}")
    epochs, minutes = learnt[data.name]["epochs"], learnt[data.name].get("minutes")
    if minutes is None:
        told.append(f"{epochs} epoch{'s' if epochs != 1 else ''}")
    else:
        told.append(f"{minutes:g} minutes of steps")
    steps: dict[str, list[float]] = {}
    for row in own:
        if row["measure"] == "dev" and "steps_seconds" in row and minutes is not None:
            steps.setdefault(row["start"], []).append(row["steps_seconds"])
    # Of a run that was halted for a while, nothing is kept that says how long it took.
    seconds = [row["process_seconds"] for row in own if row["measure"] == "dev" and "process_seconds" in row]
    if seconds and not steps:
        told.append(f"{mean(seconds) / 60:.1f} minutes a run")
    if steps:
        told.append("the steps took " + ", ".join(f"{mean(took) / 60:.1f} ({start})" for start, took in steps.items()))
    several = {start: rates for start, rates in _tried(own).items() if len(rates) > 1}
    if several:
        told.append(f"rates tried: {_told(several)}")
    parts = [f"- **{data.name}**: {', '.join(told)}."]
    if data.note:
        parts.append(data.note)
    parts += [
        f"Published ({test.replace('_', ' ')}): {known.told}, {known.source}." for test, known in data.published.items()
    ]
    return " ".join(parts)


def _samples(rows: Sequence[Row], data: DataSet) -> str:
    """What the latest model with samples wrote, if there is any of ours."""
    own = [row for row in reversed(rows) if row["set"] == data.name and "samples" in row]
    found = next((row for row in own if not row["start"].endswith(BY_PEER)), next(iter(own), None))
    if found is None:
        return ""
    return f"Samples of **{data.name}** by {found['start']}:\n\n{samples_table(found['samples'])}"


def samples_table(samples: Sequence[Row]) -> str:
    """Sources, what would have been right, and what was written."""
    lines = ["| chrF | source | reference | written |", "|---|---|---|---|"]
    for one in samples:
        cells = [" ".join(one[name].split()).replace("|", "\\|") for name in ("source", "target", "text")]
        lines.append(f"| {one['chrf']:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _size(data: DataSet, name: str, learnt: Mapping[str, Row]) -> str:
    part = learnt[data.name][name]
    if learnt[data.name]["quick"]:
        return "a few records (--quick)"
    if "limit" in part:
        return f"{part['limit']:,} records drawn at random"
    return f"a part of {part['file']}" if "last" in part else "all records"


def _machines(rows: Sequence[Row]) -> str:
    found = [row["machine"] for row in rows if "machine" in row]
    told = dict.fromkeys(map(machine, found))
    return "; ".join(told) or "no model has been measured yet"


def _rates(rows: Sequence[Row]) -> str:
    return _told(_tried(rows)) or "–"


def _tried(rows: Sequence[Row]) -> dict[str, set[float]]:
    """The learning rates of each model to start from."""
    rates: dict[str, set[float]] = {}
    for row in rows:
        if row["measure"] == "dev":
            rates.setdefault(row["start"], set()).add(row["lr"])
    return rates


def _told(rates: Mapping[str, set[float]]) -> str:
    return "; ".join(f"{', '.join(f'{rate:g}' for rate in sorted(own))} ({name})" for name, own in rates.items())
