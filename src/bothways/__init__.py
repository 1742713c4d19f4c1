"""Bothways: BERT from raw text to a served endpoint, for Chinese and English first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__", "finetune", "load", "pretrain"]

if TYPE_CHECKING:
    from bothways.infer.predictor import load
    from bothways.serve.client import AsyncClient, Client
    from bothways.train.run import finetune, pretrain


def __getattr__(name: str) -> Any:
    """Import the Python way's three verbs when they are first used: `import bothways` stays free of torch."""
    if name == "load":
        from bothways.infer.predictor import load

        return load
    if name in ("AsyncClient", "Client"):
        from bothways.serve import client

        return getattr(client, name)
    if name in ("finetune", "pretrain"):
        from bothways.train import run

        return getattr(run, name)
    raise AttributeError(f"module 'bothways' has no attribute {name!r}")
