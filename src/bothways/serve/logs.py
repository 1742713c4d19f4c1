"""What the server writes down: never a text, a key or a raw control character."""

from __future__ import annotations

import traceback
from pathlib import Path


def told_safely(error: BaseException) -> str:
    """An exception by its type and where it was raised. Its message is left out: it may quote a client's text."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{Path(at.filename).name}:{at.lineno} {at.name}" for at in reversed(frames))
    return f"{type(error).__name__} at {places}"
