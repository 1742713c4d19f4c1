"""The settings that every verb of the command line takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bothways.errors import ConfigError


@dataclass(frozen=True)
class Common:
    """What every verb takes: its settings have `common: Annotated[Common, FLAT] = field(default_factory=Common)`."""

    config: Path | None = field(default=None, compare=False)
    """A TOML file with the same keys as the flags; a flag wins over it."""
    seed: int = 0
    """Where all randomness starts: the same seed, data and settings give the same run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto is cuda where there is one."""
    quiet: bool = False
    """Print results and errors only."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; wanted a whole number from 0 to 2^63 - 1")
