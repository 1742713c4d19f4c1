"""JSON files of a model folder, read with limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bothways.errors import ModelError

MAX_JSON = 8 << 20  # bytes of a config.json: label lists can be long, but not so long


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder.

    Raises:
        ModelError: missing, too large, not JSON or not an object.
    """
    value = _read(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path}: an object in braces was wanted, found {type(value).__name__}")
    return value


def read_json_list(path: Path) -> list[Any]:
    """A JSON array from a model folder.

    Raises:
        ModelError: missing, too large, not JSON or not an array.
    """
    value = _read(path)
    if not isinstance(value, list):
        raise ModelError(f"{path}: a list in brackets was wanted, found {type(value).__name__}")
    return value


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{path} is missing; a model folder has config.json, model.safetensors and a vocabulary")
    if path.stat().st_size > MAX_JSON:
        raise ModelError(f"{path} has {path.stat().st_size:,} bytes; more than {MAX_JSON:,} is refused")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error}); copy or download the file again") from None


def shorten(value: Any) -> str:
    """A value of unknown length, for a message of one line."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
