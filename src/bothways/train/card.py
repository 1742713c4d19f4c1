"""The card of a saved model: what it was made from, how, on what, and what it scored."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bothways.data.shard_files import file_hash
from bothways.infer.devices import fast_bfloat16


def card(title: str, sections: dict[str, Any]) -> str:
    """The text of a model's README.md."""
    parts = [f"# {title}", "Made with Bothways."]
    for name, content in sections.items():
        parts += [f"## {name}", "```json\n" + json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n```"]
    return "\n\n".join(parts) + "\n"


def hardware() -> dict[str, Any]:
    """What the run computed on."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{_processor()} ({_instructions()})"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def hashes(files: Sequence[str | Path | None]) -> dict[str, str]:
    """SHA-256 of those that are files."""
    return {str(path): file_hash(Path(path)) for path in files if path is not None and Path(path).is_file()}


def _instructions() -> str:
    """The widest that PyTorch uses: two processors may bear one name, and one of them be half as fast."""
    native = ", bfloat16" if fast_bfloat16(torch.device("cpu")) else ""
    return torch.backends.cpu.get_cpu_capability() + native


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return os.uname().machine
