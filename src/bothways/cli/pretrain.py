"""`bothways pretrain`: pre-train an encoder on raw text."""

from __future__ import annotations

from bothways import config
from bothways.metrics.lines import score_lines


def run(argv: list[str]) -> int:
    """Run it; the model is in `--out`/model, its scores on held-out text on the last lines."""
    from bothways.train.ranks import in_first_process
    from bothways.train.run import PretrainRun, run_pretrain

    wanted = config.load(PretrainRun, argv, prog="bothways pretrain")
    finished = run_pretrain(wanted)
    if not wanted.common.quiet and in_first_process():
        print("\n".join([*score_lines(finished.scores), f"{'model':24} {finished.model}"]))
    return 0
