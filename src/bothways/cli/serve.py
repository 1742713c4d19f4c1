"""`bothways serve`: models behind HTTP, with a page to try them on."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from bothways import config
from bothways.config import FLAT, Common
from bothways.errors import ConfigError
from bothways.serve.limits import Limits

if TYPE_CHECKING:
    from bothways.infer.predictor import Predictor


@dataclass(frozen=True)
class Serve:
    """Serve models over HTTP, with a page to try them on."""

    models: tyro.conf.Positional[list[str]] = field(default_factory=list)
    """folders of models or runs, or names on the hub, each also as NAME=FOLDER; none: the built-in model"""
    port: int = 8000
    """0: any free one"""
    host: str = "127.0.0.1"
    """who may reach it; 0.0.0.0: every machine of the network. On this machine alone and without a key, it answers only
    to localhost, 127.0.0.1, [::1] and this name"""
    api_key: str | None = None
    """asked for on every route but /health; also read from the environment, BOTHWAYS_API_KEY"""
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "float32"
    """what products are computed in; auto: bfloat16 where this machine is fast at it; int8: for a CPU"""
    limits: Annotated[Limits, FLAT] = field(default_factory=Limits)
    common: Annotated[Common, FLAT] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port is {self.port}; wanted a number from 0 to 65535")


def run(argv: list[str]) -> int:
    """Serve until a signal comes."""
    wanted = config.load(Serve, argv, prog="bothways serve")
    # Batches have ever new shapes, and oneDNN would keep a prepared kernel for each of a thousand of them.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    from bothways.serve.app import App
    from bothways.serve.client import check_key
    from bothways.serve.gate import loopback_names
    from bothways.serve.server import listen
    from bothways.serve.server import run as serve

    named = names_of(wanted.models or ["builtin"])
    key = wanted.api_key if wanted.api_key is not None else os.environ.get("BOTHWAYS_API_KEY") or None
    if key is not None:
        check_key(key)
    with listen(wanted.host, wanted.port) as listening:  # before the models are loaded, which may take long
        host, port = listening.getsockname()[:2]
        hosts = loopback_names(wanted.host, host)
        app = App(loaded(named, wanted), limits=wanted.limits, api_key=key, hosts=hosts)
        logging.basicConfig(
            level=logging.WARNING if wanted.common.quiet else logging.INFO,
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(message)s",
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        shown = f"[{host}]" if ":" in host else host
        print(f"serving {', '.join(named)} on http://{shown}:{port}", flush=True)
        if key is None and hosts is None:
            print(
                "anyone who can reach this machine may use it; --api-key K asks for a key", file=sys.stderr, flush=True
            )
        return serve(app, listening)


def names_of(given: list[str]) -> dict[str, str]:
    """Each model's folder by the name that clients use: NAME=FOLDER, else the folder's own, of a run its run's.

    Raises:
        ConfigError: two of one name, or a name that is empty or has control characters.
    """
    named: dict[str, str] = {}
    for one in given:
        name, equals, folder = one.partition("=")
        if not equals or Path(one).exists():
            folder = one
            path = Path(one)
            name = path.resolve().parent.name if path.name == "model" and path.exists() else path.name or one
        if not name or not name.isprintable() or not folder:
            raise ConfigError(f"{one!r} gives no name and folder; wanted FOLDER or NAME=FOLDER")
        if name in named:
            raise ConfigError(f"two models are called {name!r}; name one of them: other={folder}")
        named[name] = folder
    return named


def loaded(named: dict[str, str], wanted: Serve) -> dict[str, Predictor]:
    """The models by name, on the device and in the precision that are wanted.

    Raises:
        ModelError: one of them can't be loaded.
        ConfigError: the device is not there, or does not compute in that precision.
    """
    from bothways.infer.predictor import load

    device, precision = wanted.common.device, wanted.precision
    return {name: load(folder, device=device, precision=precision) for name, folder in named.items()}
