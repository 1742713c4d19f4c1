"""Very many short rows to vectors: does memory stay flat, and does a run that is killed and killed lose nothing?

    python benchmarks/embed.py --rows 1000000     # with the built-in model some 5 GB of disk, in --scratch
    python benchmarks/embed.py --rows 1000000 --size tiny    # as many rows in some minutes: 2 layers, 128 wide
    python benchmarks/embed.py --rows 3000        # tries it, most of the time in starting processes

`bothways embed` runs as a process over rows of three to twelve words, English and Chinese ones of the model's own
vocabulary: once undisturbed, its resident memory (its children's too) looked at every half second; then once more,
killed by SIGKILL at random moments of the work and started by the same command each time, which is all that resuming
takes. Both outputs must be equal byte for byte, no part that was finished may be computed again, nothing may be left
behind, and from the first tenth of the rows to the end memory may grow by 50 MB. The exit code says whether it holds.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import psutil

from bothways.models.hub import locate
from bothways.models.model import fresh, save, seed_everything
from bothways.models.sizes import sized
from bothways.text.characters import code_points, is_han
from bothways.text.tokenizer import Tokenizer
from bothways.vectors.embed import PART

GROWTH_MB = 50
EVERY = 0.5  # seconds between looks at the memory
SHORTEST, LONGEST = 3, 12  # words of a row
BLOCK = 10_000  # rows whose tokens are counted at once


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both, print, and say whether what is promised holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--model", default="builtin", help="a folder, a run, or a name on the hub")
    parser.add_argument("--size", help="of a model with random weights instead, and --model's vocabulary: tiny, …")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the rows and of the moments")
    parser.add_argument("--threads", type=int, help="none: as OMP_NUM_THREADS or the machine says")
    parser.add_argument("--scratch", type=Path, help="where the rows and vectors lie meanwhile; none: as TMPDIR says")
    wanted = parser.parse_args(argv)
    if wanted.rows < 1 or wanted.kills < 0:
        parser.error("wanted at least one row, and no fewer kills than none")
    with tempfile.TemporaryDirectory(dir=wanted.scratch) as scratch:
        data, out = Path(scratch, "rows.jsonl"), Path(scratch, "out")
        out.mkdir()
        tokenizer = Tokenizer.from_folder(locate(wanted.model))
        tokens = write_rows(data, tokenizer, wanted.rows, wanted.seed)
        told = f"size {wanted.size}, random weights" if wanted.size else f"model {wanted.model}"
        print(f"{wanted.rows:,} rows, {tokens:,} tokens, {told}, seed {wanted.seed}\n", flush=True)
        model = wanted.model
        if wanted.size:
            seed_everything(wanted.seed)
            model = str(Path(scratch, "model"))
            save(fresh(sized(wanted.size, tokenizer.size), tokenizer, None), Path(model))
        job = Job(model, data, out / "undisturbed.npy", wanted.threads)
        alone = undisturbed(job, wanted.rows)
        print_alone(alone, tokens)
        job = Job(model, data, out / "killed.npy", wanted.threads)
        killed = killed_and_resumed(job, moments(wanted.rows, wanted.kills, wanted.seed), alone.seconds / wanted.rows)
        differ = difference(out / "undisturbed.npy", out / "killed.npy")
        left = sorted(path.name for path in out.iterdir() if path.suffix != ".npy")
        print_killed(killed, wanted.kills, differ, left)
    faults = [
        *([f"memory grew by {alone.growth:.1f} MB"] if alone.growth > GROWTH_MB else []),
        *(["the outputs differ"] if differ else []),
        *([f"{killed.again} finished parts were computed again"] if killed.again else []),
        *(["an output was there before its run had ended"] if killed.early else []),
        *([f"left behind: {', '.join(left)}"] if left else []),
        *([f"only {len(killed.moments)} kills came before the end"] if len(killed.moments) < wanted.kills else []),
    ]
    print("\nDoes not hold: " + "; ".join(faults) if faults else "\nHolds.")
    return int(bool(faults))


# ------------------------------------------------------------------------------------------------------ the rows


def write_rows(path: Path, tokenizer: Tokenizer, count: int, seed: int) -> int:
    """That many rows of words, the same for the same seed; their tokens, [CLS] and [SEP] among them."""
    made, tokens = texts(tokenizer, seed), 0
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, count, BLOCK):
            block = list(islice(made, min(BLOCK, count - first)))
            tokens += sum(len(one.ids) for one in tokenizer.encode(block)) + 2 * len(block)
            for number, text in enumerate(block, start=first):
                file.write(json.dumps({"id": number, "text": text}, ensure_ascii=False) + "\n")
    return tokens


def texts(tokenizer: Tokenizer, seed: int) -> Iterator[str]:
    """Three to twelve words each, English or Chinese by a coin; a Chinese word is one or two characters."""
    pieces = [tokenizer.token(number) for number in range(tokenizer.size)]
    english = [piece for piece in pieces if piece.isascii() and piece.isalpha() and len(piece) > 2]
    chinese = [piece for piece in pieces if len(piece) == 1 and is_han(code_points(piece))[0]]
    kinds = [(words, mark) for words, mark in ((english, " "), (chinese, "")) if words]
    draw = random.Random(seed)
    while True:
        words, mark = draw.choice(kinds)
        size = draw.randint(SHORTEST, LONGEST)
        if not mark:
            size = sum(draw.choices((1, 2), k=size))
        yield mark.join(draw.choices(words, k=size))


# ------------------------------------------------------------------------------------------------- the processes


@dataclass(frozen=True)
class Job:
    """One output, by as many processes as it takes."""

    model: str
    data: Path
    out: Path
    threads: int | None

    @property
    def work(self) -> Path:
        """Where `bothways embed` keeps the parts that are finished."""
        return self.out.with_name(f".{self.out.name}.parts")

    def parts(self) -> dict[str, int]:
        """The finished parts, and when each was written."""
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile, for the output is there
            return {path.name: path.stat().st_mtime_ns for path in self.work.glob("*.npz")}
        return {}

    def at_work(self, since: int) -> bool:
        """Whether a process that was started then (ns) has begun: each opens the lock anew."""
        with contextlib.suppress(FileNotFoundError):
            return (self.work / "lock").stat().st_mtime_ns >= since
        return False

    @contextlib.contextmanager
    def process(self, *, killing: bool = False) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """`bothways embed`, the same command each time, and when it was started (ns); gone afterwards."""
        command = [sys.executable, "-m", "bothways", "embed", self.model, "--device", "cpu"]
        threads = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        with tempfile.TemporaryFile("w+") as errors:
            started = time.time_ns() - 10_000_000  # a file's time is that of the last tick
            process = subprocess.Popen(
                [*command, "--data", str(self.data), "--out", str(self.out)],
                env=os.environ | threads, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
            try:
                yield process, started
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
            if process.returncode > 0 or (process.returncode < 0 and not killing):
                errors.seek(0)
                raise SystemExit(f"{' '.join(command)} … ended with {process.returncode}: {errors.read()[-2000:]}")


@dataclass
class Alone:
    """An undisturbed run: looks at it (rows done, seconds of work, MB resident), and how long it took."""

    rows: int
    looks: list[tuple[int, float, float]] = field(default_factory=list)
    seconds: float = 0.0  # from the first record read to the end
    started: float = 0.0  # seconds before that

    def tenths(self) -> list[tuple[int, float, float]]:
        """The first look at or after each tenth of the rows; one look may be that of several."""
        wanted = (self.rows * tenth / 10 for tenth in range(1, 11))
        firsts = (next((look for look in self.looks if look[0] >= least), None) for least in wanted)
        return [*dict.fromkeys(look for look in firsts if look is not None)]

    @property
    def growth(self) -> float:
        """MB by which memory grew from the first tenth of the rows to the last look, while the output is written."""
        tenths = self.tenths()
        return self.looks[-1][2] - tenths[0][2] if tenths else 0.0


def undisturbed(job: Job, rows: int) -> Alone:
    """Run it to its end and look at it meanwhile."""
    found, begun, looked = Alone(rows), None, 0.0
    with job.process() as (process, started):
        clock = time.perf_counter()
        while process.poll() is None:
            time.sleep(0.02)
            now = time.perf_counter()
            if begun is None:
                if not job.at_work(started):
                    continue
                begun, found.started = now, now - clock
            done = min(rows, len(job.parts()) * PART)
            before = found.looks[-1][0] if found.looks else 0
            if now - looked >= EVERY or done > before:
                if memory := resident(process.pid):
                    found.looks.append((max(done, before), now - begun, memory))
                looked = now
        found.seconds = time.perf_counter() - (begun or clock)
    return found


def resident(pid: int) -> float:
    """MB of memory that the process and its children have; 0: it is over."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20
    return 0.0


@dataclass
class Killed:
    """What killing and resuming came to."""

    moments: list[int] = field(default_factory=list)  # rows that were finished at each kill
    again: int = 0  # finished parts that a later process wrote anew or lost
    early: bool = False  # an output was there though its run had not ended
    reused: int = 0  # rows of earlier processes that the last one tells of
    seconds: float = 0.0  # all processes, from start to end


def moments(rows: int, kills: int, seed: int) -> list[int]:
    """The row that each kill comes at, in order."""
    draw = random.Random(seed)
    return sorted(draw.randrange(rows) for _ in range(kills))


def killed_and_resumed(job: Job, moments: Sequence[int], row_seconds: float) -> Killed:
    """Kill the run when it has come to each of these rows, in order, and let the last process end.

    A part's rows are counted off by the clock, `row_seconds` each, for nothing is seen of them from outside.
    """
    found, kept, begun = Killed(), dict[str, int](), time.perf_counter()
    for moment in moments:
        with job.process(killing=True) as (process, started):
            while process.poll() is None and not (job.at_work(started) and len(job.parts()) >= moment // PART):
                time.sleep(0.005)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment % PART * row_seconds)
            process.kill()
            process.wait()
        if process.returncode == 0 or (job.out.exists() and not job.work.exists()):  # all done, if not gone yet
            break
        now = job.parts()
        found.again += sum(now.get(name) != written for name, written in kept.items())
        found.early |= job.out.exists()
        found.moments.append(len(now) * PART)
        kept = now
    else:
        with job.process() as (process, _):
            told, _ = process.communicate()
        reused = re.search(r"([\d,]+) of them from an earlier run", told)
        found.reused = int(reused[1].replace(",", "")) if reused else 0
        found.again += max(0, len(kept) - -(-found.reused // PART))
    found.seconds = time.perf_counter() - begun
    return found


def difference(a: Path, b: Path) -> str | None:
    """None: equal byte for byte; else in how many rows two arrays differ, and by how much."""
    if filecmp.cmp(a, b, shallow=False):
        return None
    one, other = np.load(a, mmap_mode="r"), np.load(b, mmap_mode="r")
    if one.shape != other.shape:
        return f"shapes {one.shape} and {other.shape}"
    rows, most = 0, 0.0
    for first in range(0, len(one), BLOCK):
        apart = np.abs(one[first : first + BLOCK] - other[first : first + BLOCK]).max(axis=1)
        rows, most = rows + int((apart != 0).sum()), max(most, float(apart.max()))
    return f"{rows:,} of {len(one):,} rows, by {most:.2g} at most"


# ----------------------------------------------------------------------------------------------------- the tables


def print_alone(alone: Alone, tokens: int) -> None:
    """The undisturbed run."""
    print("| rows done | MB resident | rows/s so far |\n|---|---|---|")
    for done, seconds, memory in alone.tenths():
        print(f"| {done:,} | {memory:.0f} | {done / seconds:,.0f} |")
    most = max((memory for *_, memory in alone.looks), default=0.0)
    print("\n| undisturbed | |\n|---|---|")
    print(f"| seconds | {alone.seconds:.1f}, and {alone.started:.1f} to start |")
    print(f"| rate | {alone.rows / alone.seconds:,.0f} rows/s, {tokens / alone.seconds:,.0f} tokens/s |")
    print(f"| memory from the first tenth to the end | {alone.growth:+.1f} MB, at most {GROWTH_MB} wanted |")
    print(f"| most memory | {most:.0f} MB |", flush=True)


def print_killed(killed: Killed, kills: int, differ: str | None, left: Sequence[str]) -> None:
    """The other one."""
    print(f"\n| killed {len(killed.moments)} of {kills} times | |\n|---|---|")
    print(f"| rows finished at each kill | {', '.join(f'{rows:,}' for rows in killed.moments) or 'none'} |")
    print(f"| rows that the last process took over | {killed.reused:,} |")
    print(f"| finished parts computed again | {killed.again} |")
    print(f"| seconds of all processes | {killed.seconds:.1f} |")
    print(f"| left behind | {', '.join(left) or 'nothing'} |")
    print(f"| output | {'equal, byte for byte' if differ is None else f'differs: {differ}'} |")


if __name__ == "__main__":
    sys.exit(main())
