"""Writing on real data, beside transformers and what needs no model: measures what is missing, writes the page.

    python -m runs.generate --shared ../shared/data --start DIR --minutes 30

Rows, seeds, resuming and docs/generation.md are as in `runs.results`. Each set is learnt for so many minutes from
`--start`, then its test records are written with beams. `--decoders share fresh` also measures a decoder that is the
encoder but for its cross-attention (BERT-share), and one that starts from nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.finetune import SHARED
from runs.pages import BY_PEER, page, samples_table
from runs.results import ResultsPlan, Start, baselines, builtin_weights, finetuned, told
from runs.rows import RESULTS, Row, Rows
from runs.sets import DataSet
from runs.tfidf import records as as_records
from runs.writers import WRITERS
from runs.writing_samples import SAMPLES
from runs.writing_sets import SETS, WritingSet

from bothways.data.record import Record

PAGE = Path(__file__).resolve().parent.parent / "docs" / "generation.md"
BEAMS = 4  # on the tests; dev is written greedily
SHOWN = 5  # test records that are left to look at
QUICK = {"train": 64, "dev": 8, "test": 12}  # records of a quick run

BATCH = 12  # records a step: of many small steps more is learnt in a few minutes than of few large ones

HEAD = """# Generation

Texts written for texts by an encoder-decoder that begins as a BERT (BERT2BERT), beside what needs no model and beside
transformers' EncoderDecoderModel: the same weights to begin with (cross-attention as the layers' attention to
themselves), records, steps of {batch}, rate, AdamW and seconds of steps, by its Trainer. "copy": the decoder
begins as a copy of the encoder.

    command    {command}
    machine    {machines}
    counted    {signatures}
    rates      {rates}

ROUGE, distinct, EM and F1 in percent, BLEU and chrF from 0 to 100, perplexity a token; means ± sample deviation over
the seeds. The best epoch by dev counts, whose time does not; tests are written with 4 beams, by Bothways, which writes
what transformers does (`benchmarks/generate.py --check`). Under each table: how long a set was learnt, and from what.
Samples are of sentences of our own (`runs/writing_samples.py`), for the sets' texts belong
to their authors; five test records of each, from the worst written to the best, are left in `samples.md` in `--work`.

Where no model reads both languages, one vocabulary and one encoder are first learnt on the pairs themselves, each side
as text of its own:

    bothways vocab --text train.jsonl --columns.text source,target --size 16000 --out out/vocab
    bothways pretrain --text train.jsonl --columns.text source,target --vocab out/vocab --corpus.second none \\
        --minutes 10 --out out/encoder
    bothways finetune generate --model out/encoder --train train.jsonl --dev dev.jsonl --out out/writer
""".replace("{batch}", str(BATCH))
TITLES = {
    "translation": "Translation",
    "headlines": "Headlines",
    "dialogue": "Dialogue",
    "answers": "A question and its passage → the answer",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Make all rows that are missing, and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder with en/ and zh/")
    parser.add_argument("--work", type=Path, default=Path("out/generate"), help="the folder for data and runs")
    parser.add_argument("--rows", type=Path, help="default: runs/results/generate.jsonl, or in --work if --quick")
    parser.add_argument("--page", type=Path, help="default: docs/generation.md, or in --work if --quick")
    parser.add_argument("--sets", nargs="+", choices=[data.name for data in SETS], help="only these")
    parser.add_argument("--start", default="builtin", help="the model to start from: a folder, a run, or builtin")
    parser.add_argument("--decoders", nargs="+", choices=["copy", "share", "fresh"], default=["copy"])
    parser.add_argument("--minutes", type=float, default=30.0, help="of training, each")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4], help="of several dev chooses, by seed 0")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, …")
    parser.add_argument("--without-peer", action="store_true", help="leave transformers out")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    parser.add_argument("--keep", action="store_true", help="keep the runs' folders when their rows are made")
    parser.add_argument("--write", action="store_true", help="measure nothing: write the page from the rows there are")
    wanted = parser.parse_args(argv)
    rows = Rows(wanted.rows or (wanted.work if wanted.quick else RESULTS) / "generate.jsonl")
    target = wanted.page or (wanted.work / "generation.md" if wanted.quick else PAGE)
    plan = ResultsPlan(wanted.shared, wanted.work, rows, wanted.seeds, wanted.quick, wanted.keep)
    if not (plan.shared / "en").is_dir():
        sys.exit(f"{plan.shared} holds no en/; name the folder of the data by --shared")
    sets = [_cut(data) if wanted.quick else data for data in SETS]
    sets = [replace(data, minutes=0.02 if wanted.quick else wanted.minutes) for data in sets]
    chosen = [data for data in sets if not wanted.sets or data.name in wanted.sets]
    command = f"python -m runs.generate --start {Path(wanted.start).name} --minutes …"

    def write() -> None:
        done = rows.all()
        told = [data if data in chosen and not wanted.write else _as_learnt(data, done) for data in sets]
        learnt = {data.name: plan.learnt(data) for data in told if data in chosen or not wanted.quick}
        text = page(done, learnt, sets=told, head=HEAD, command=command, titles=TITLES, builtin=builtin_weights())
        if wanted.write and done and not any(row["learnt"] == learnt.get(row["set"]) for row in done):
            sys.exit(f"no row in {rows.path} was learnt as the sets are now, so the page would be empty; it stays")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    with rows.only_writer():
        if not wanted.write:
            begins = starts(wanted.start, wanted.decoders, tuple(wanted.rates), peer=not wanted.without_peer)
            for data in chosen:
                baselines(plan, data, WRITERS[data.kind])
                for start in begins:
                    finetuned(plan, data, start, score=partial(written, left=plan.work / "samples.md"))
                write()
        write()
    print(f"{len(rows.all())} rows in {rows.path}, told in {target}")
    return 0


def starts(name: str, decoders: Sequence[str], rates: tuple[float, ...], *, peer: bool) -> list[Start]:
    """Bothways with each kind of decoder, and transformers with the first that it can."""
    from bothways.models.hub import locate

    folder, own = locate(name), Path(name).name
    # By AdamW, whatever the model advises: the peer's Trainer takes it, and in so short a time it learns more.
    flags = ("--optim.method", "adamw", "--batch", str(BATCH), "--generate.decoder")
    found = [Start(f"{own}, {how}", folder, ("both",), rates, (*flags, how)) for how in decoders]
    theirs = next((start for start in found if "share" not in start.flags), None)
    if peer and theirs is not None:
        module = "runs.transformers_writer"
        found.append(replace(theirs, name=f"{theirs.name}{BY_PEER}", module=module, as_long_as=theirs.name))
    return found


def written(folder: Path, data: DataSet, tests: Mapping[str, list[Row]], *, left: Path) -> Row:
    """A run's scores on the tests, how they were counted, and samples of our own; some of a test's go to `left`."""
    import bothways as package

    assert isinstance(data, WritingSet)
    predictor = package.load(folder, max_length=data.max_length).with_options(beams=BEAMS)
    task, found, signatures = predictor.model.task, {}, list[str]()
    assert task is not None
    for test, rows in tests.items():
        records = as_records(rows)
        encoded = predictor.encode(records, labelled=True)
        predictions = predictor.answer(records, encoded)
        scores = data.scores(task, records, predictions)
        signatures += [f"{name} {how}" for name, how in scores["signatures"].items()]
        if not found:
            ranked = _ranked(records, predictions)
            chosen = {step * (len(ranked) - 1) // (SHOWN - 1): None for step in range(SHOWN)}
            with left.open("a", encoding="utf-8") as file:
                file.write(f"## {data.name}, {folder}\n\n{samples_table([ranked[at] for at in chosen])}\n")
        found[test] = told(scores, rows) | {"tokens_dropped": sum(one.coverage.dropped for one in encoded)}
    own = [{"source": source, "target": target} for source, target in SAMPLES[data.name]]
    samples = _ranked(as_records(own), predictor.predict(own))
    return {"tests": found, "signatures": list(dict.fromkeys(signatures)), "samples": samples}


def _ranked(records: Sequence[Record], predictions: Sequence[dict[str, Any]]) -> list[Row]:
    """Sources, targets and what was written, worst first by chrF."""
    from bothways.metrics.overlap import chrf
    from bothways.tasks.generate import targets_of

    found = [
        {
            "chrf": round(chrf([targets_of(record)], [one["text"]])[0], 1),
            "source": record.fields["source"],
            "target": targets_of(record)[0],
            "text": one["text"],
        }
        for record, one in zip(records, predictions, strict=True)
    ]
    return sorted(found, key=lambda one: one["chrf"])


def _as_learnt(data: WritingSet, rows: Sequence[Row]) -> WritingSet:
    """The set, to be learnt for as many minutes as the latest of its rows were."""
    minutes = [row["learnt"].get("minutes") for row in rows if row["set"] == data.name]
    return replace(data, minutes=minutes[-1]) if minutes else data


def _cut(data: WritingSet) -> WritingSet:
    """A little of each part."""
    parts = {name: replace(part, limit=QUICK[name]) for name, part in data.parts().items()}
    return replace(data, train=parts["train"], dev=parts["dev"], tests={"test": parts["test"]})


if __name__ == "__main__":
    sys.exit(main())
