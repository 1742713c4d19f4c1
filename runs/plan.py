"""What every script of measurements plans alike: its flags, where things are, and a fine-tuning by the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.finetune import SHARED
from runs.rows import RESULTS, Row, Rows, bothways, log, resumed


@dataclass(frozen=True)
class Plan:
    """Where things are, and how much is done."""

    shared: Path
    work: Path
    rows: Rows
    seeds: int
    quick: bool


def flags(doc: str | None, name: str, *, shared: str, seeds: int = 3) -> argparse.ArgumentParser:
    """The flags of a script whose rows go to `name`.jsonl; `shared` says what it wants to find in the data."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help=f"the folder with {shared}")
    parser.add_argument("--work", type=Path, default=Path("out") / name, help="the folder for data, runs and models")
    parser.add_argument(
        "--rows", type=Path, default=None, help=f"default: runs/results/{name}.jsonl, or in --work if --quick"
    )
    parser.add_argument("--seeds", type=int, default=seeds, help="seeds 0, 1, …")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    return parser


def planned(wanted: argparse.Namespace, name: str) -> Plan:
    """The plan that the flags say."""
    rows = Rows(wanted.rows or (wanted.work if wanted.quick else RESULTS) / f"{name}.jsonl")
    return Plan(wanted.shared, wanted.work, rows, wanted.seeds, wanted.quick)


def finetune(
    task: str,
    *,
    model: Path,
    train: Path,
    dev: Path | None = None,
    out: Path,
    rate: float,
    epochs: int,
    seed: int,
    minutes: float | None = None,
    more: Sequence[str] = (),
    module: str = "bothways",
) -> Row:
    """One fine-tuning with the defaults but for what is said; a run that is in `out` goes on.

    Without `dev` the last epoch's model is kept. `minutes` counts instead of `epochs` where it is given; `module` takes
    the words of `bothways`: it, or a peer.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    long = ("--epochs", str(epochs)) if minutes is None else ("--minutes", f"{minutes:g}")
    seconds = bothways(
        *("finetune", task, "--model", str(model), "--out", str(out), "--seed", str(seed), "--quiet"),
        *("--train", str(train), *(() if dev is None else ("--dev", str(dev))), *long, "--optim.lr", f"{rate:g}"),
        *(*more, *resumed(out)),
        module=module,
    )
    ended = log(out)[-1]
    took = {name: ended[name] for name in ("steps_seconds",) if name in ended}
    return {"dev": ended["finished"], "process_seconds": seconds} | took
