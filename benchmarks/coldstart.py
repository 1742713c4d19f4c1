"""From nothing to the first answer: `bothways predict` beside transformers' pipeline, seconds and peak memory.

    python benchmarks/coldstart.py --rounds 5

Each is a fresh process that loads one classifier of all-MiniLM-L6-v2's shape and labels one text; they take turns.
Files are in the disk's cache. A process with nothing but `import torch` stands beside them: neither can be below it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from statistics import median

TEXT = "The quick brown fox jumps over the lazy dog."
PIPELINE = """
import sys
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1], device="cpu")(sys.argv[2]))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="coldstart-") as scratch:
        folder = Path(scratch) / "model"
        # In a process of its own: Linux counts what a parent holds when it forks as the child's peak.
        made = get_context("spawn").Process(target=classifier, args=(folder,))
        made.start()
        made.join()
        if made.exitcode:
            return 1
        commands = {
            "bothways": [sys.executable, "-m", "bothways", "predict", str(folder), TEXT, "--device", "cpu"],
            "transformers": [sys.executable, "-c", PIPELINE, str(folder), TEXT],
            "import torch": [sys.executable, "-c", "import torch"],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for number in range(wanted.rounds + 1):
            for name, command in commands.items():
                measured = run(command)
                if number:  # the first round fills the disk's cache
                    taken[name].append(measured)
    print(table(taken))
    return 0


def classifier(folder: Path) -> None:
    """A classifier with random weights, saved in the form that both read."""
    import torch

    from bothways.models.model import fresh, save
    from bothways.nn.encoder import EncoderConfig
    from bothways.tasks.classify import ClassifySettings, ClassifyTask
    from bothways.text.tokenizer import Tokenizer

    torch.manual_seed(0)
    words = [f"w{number}" for number in range(30522 - 5 - 26)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *words]
    config = EncoderConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
    task = ClassifyTask(ClassifySettings(), "one", ["bad", "good"])
    save(fresh(config, Tokenizer.from_vocab(pieces), task), folder)


def run(command: list[str]) -> tuple[float, float]:
    """Seconds, and MiB at the peak, of one process."""
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command[:4])} … ended with exit code {process.returncode}: {said}")
    return seconds, usage.ru_maxrss / 1024


def table(taken: dict[str, list[tuple[float, float]]]) -> str:
    """Markdown: medians and minima, and what part of transformers' each takes (the median of the rounds' ratios)."""
    lines = [
        "| command | seconds, median (min) | of transformers' | peak MiB | of transformers' |",
        "|---|---|---|---|---|",
    ]
    for name, rows in taken.items():
        pairs = list(zip(rows, taken["transformers"], strict=True))
        seconds, memory = [row[0] for row in rows], [row[1] for row in rows]
        share = [median(mine[part] / theirs[part] for mine, theirs in pairs) for part in (0, 1)]
        lines.append(
            f"| {name} | {median(seconds):.2f} ({min(seconds):.2f}) | {share[0]:.2f} "
            f"| {median(memory):.0f} | {share[1]:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
