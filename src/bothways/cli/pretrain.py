"""`bothways pretrain`: pre-train an encoder on raw text."""

from __future__ import annotations

from bothways import config


def run(argv: list[str]) -> int:
    """Run it; the model is in `--out`/model."""
    from bothways.train.run import PretrainRun, run_pretrain

    wanted = config.load(PretrainRun, argv, prog="bothways pretrain")
    finished = run_pretrain(wanted)
    if not wanted.common.quiet:
        for name, value in finished.scores.items():
            print(f"{name:24} {value:.4f}" if isinstance(value, float) else f"{name:24} {value}")
        print(f"model                    {finished.model}")
    return 0
