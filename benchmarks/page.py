"""Every benchmark of benchmarks/plan, measured once each, and docs/benchmarks.md written from what they printed.

    python -m benchmarks.page                              what is missing, one at a time, then the page
    python -m benchmarks.page --only coldstart serve       only these
    python -m benchmarks.page --write                      the page only, of what is there

What a benchmark printed is kept in benchmarks/results/NAME.md under a few lines that say when, on what and by which
command it was measured. One that is there is not measured again; remove its file to have it anew.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.plan import MISSED, SECTIONS, Measurement, Section

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
WANTED = ("date", "machine", "command")  # in every head; others may stand there too, and are told
HEAD = """# Benchmarks

Bothways beside what people use today: each table is one run in which all sides take turns on one machine, each at its
best settings, so that only ratios are to be quoted; another machine gives other speeds. `make bench` measures
everything (hours) and writes this page; one table alone comes from its command. What each benchmark does, and what is
not the same on both sides, is told in [benchmarks/](../benchmarks/README.md). The built-in model is the one of the date
that a table tells: until 2026-11-30 it had three layers, not four.
"""


@dataclass(frozen=True)
class Result:
    """What one measurement printed, and the lines above that say how it came about."""

    head: Mapping[str, str]
    body: str


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then write the page; 1 if a benchmark failed."""
    wanted = _arguments(argv)
    failed = []
    for one in () if wanted.write else _measurements():
        path = wanted.results / f"{one.name}.md"
        if (wanted.only and one.name not in wanted.only) or path.is_file():
            continue
        if reason := one.lacks(ROOT):
            print(f"{one.name} is left out: {reason}", file=sys.stderr, flush=True)
        elif (result := measure(one)) is None:
            failed.append(one.name)
        else:
            keep(path, result)
    results = {one.name: read(path) for one in _measurements() if (path := wanted.results / f"{one.name}.md").is_file()}
    wanted.page.parent.mkdir(parents=True, exist_ok=True)
    wanted.page.write_text(page(SECTIONS, results), encoding="utf-8")
    print(f"{len(results)} of {len([*_measurements()])} measurements in {wanted.page}")
    if failed:
        print(f"failed: {', '.join(failed)}; what they said stands above; run this again to go on", file=sys.stderr)
    return int(bool(failed))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [one.name for one in _measurements()]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--write", action="store_true", help="measure nothing: write the page from what is there")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where what was printed is kept")
    parser.add_argument("--page", type=Path, default=PAGE)
    return parser.parse_args(argv)


def _measurements() -> Iterator[Measurement]:
    for section in SECTIONS:
        yield from section.measurements


# ---------------------------------------------------------------------------------------------- measuring


def measure(one: Measurement) -> Result | None:
    """Run one benchmark and show what it prints; None when it ended by an error or printed nothing."""
    from bothways.train.card import hardware

    print(f"\n$ {one.told}", file=sys.stderr, flush=True)
    load, begun, lines = os.getloadavg()[0], time.perf_counter(), []
    command = [sys.executable, *one.command]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    body = "".join(lines).strip("\n")
    if process.returncode not in (0, MISSED) or not body:
        print(f"{one.name} ended with exit code {process.returncode}", file=sys.stderr, flush=True)
        return None
    head = {"date": date.today().isoformat(), "machine": machine(hardware()), "command": one.told}
    head |= {"minutes": f"{(time.perf_counter() - begun) / 60:.1f}", "load": f"{load:.2f} before it began"}
    return Result(head, body)


def machine(one: Mapping[str, Any]) -> str:
    """What `hardware()` told, in words."""
    threads = f"{one['threads']} thread{'s' if one['threads'] != 1 else ''}"
    return f"{one['device']}, {threads}, PyTorch {one['torch']}"


# ------------------------------------------------------------------------------------------ kept and told


def keep(path: Path, result: Result) -> None:
    """Write a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "".join(f"{name:<10} {value}\n" for name, value in result.head.items())
    unfinished = path.with_suffix(".part")
    unfinished.write_text(f"{head}\n{result.body}\n", encoding="utf-8")
    unfinished.replace(path)


def read(path: Path) -> Result:
    """A kept result: lines of a name and a value, a blank line, and what was printed."""
    head, _, body = path.read_text(encoding="utf-8").partition("\n\n")
    pairs = dict(re.findall(r"^(\w+)[ \t]+(\S.*)$", head, flags=re.MULTILINE))
    if missing := [name for name in WANTED if name not in pairs]:
        sys.exit(
            f"{path} does not begin with a line for {' and for '.join(missing)}; "
            f"wanted are lines such as 'command    python …', then a blank one, then what was printed"
        )
    return Result(pairs, body.strip("\n"))


def page(sections: Sequence[Section], results: Mapping[str, Result]) -> str:
    """The whole page; what has not been measured is named at its end."""
    parts = [HEAD]
    for section in sections:
        own = [one for one in section.measurements if one.name in results]
        if not own:
            continue
        parts.append(f"## {section.title}\n\n{section.about}\n\nWanted: {section.target}.\n")
        for one in own:
            if len(section.measurements) > 1:
                parts.append(f"### {one.title}\n")
            parts.append(_told(results[one.name]))
    if missing := [one.name for section in sections for one in section.measurements if one.name not in results]:
        parts.append(f"Not measured yet: {', '.join(missing)}.\n")
    return "\n".join(parts)


def _told(result: Result) -> str:
    head = "".join(f"    {name:<10} {value}\n" for name, value in result.head.items())
    # A heading at the top is the script's own title; the page has one. Others must not outrank the page's.
    body = re.sub(r"\A#+ .*\n+", "", result.body)
    body = re.sub(r"^#+ ", "#### ", body, flags=re.MULTILINE)
    return f"{body}\n\n{head}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; run this again to go on")
