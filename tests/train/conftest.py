"""Tiny models, records and texts, and runs in processes of their own that can be killed at a chosen point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.toys import BAD, GOOD, WORDS, labelled, write_records

from bothways.models.model import fresh, save
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*WORDS, *GOOD, *BAD, "."})]


@dataclass(frozen=True)
class Tiny:
    """Files to train on."""

    model: Path  # two layers, 32 wide, dropout 0.1, with its masked-LM and next-sentence heads
    train: Path  # 24 records of two labels, of 4 to 17 tokens
    dev: Path  # 8 records
    text: Path  # 20 documents of 6 sentences


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)  # the same weights whichever tests were run before
    config = EncoderConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    save(fresh(config, Tokenizer.from_vocab(VOCABULARY), PretrainTask("next")), folder / "model")
    documents = ["\n".join(record["text"] + " ." for record in labelled(6, seed)) for seed in range(20)]
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return Tiny(
        folder / "model",
        write_records(folder / "train.jsonl", labelled(24, 1)),
        write_records(folder / "dev.jsonl", labelled(8, 2)),
        folder / "text.txt",
    )


# A server that has imported everything and computed nothing forks a process for each run: torch is imported once,
# and no thread of the tests is copied. `at` is [module, function, n, signal]: the signal comes at its n-th call.
SERVER = """
import importlib, json, os, sys
import matplotlib.pyplot, sklearn.metrics, torch._dynamo
import bothways.train.run
from bothways.cli.main import main

def interrupt(module, function, number, signal):
    owner = importlib.import_module(module)
    *path, name = function.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, left = getattr(owner, name), [number]
    def counted(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal)
        return original(*args, **kwargs)
    setattr(owner, name, counted)

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in ((1, asked["out"]), (2, asked["err"])):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), number)
        os.environ.update(asked["env"])
        torch.set_num_threads(asked["threads"])
        if asked["at"]:
            interrupt(*asked["at"])
        code = main(asked["argv"])
        sys.stdout.flush()
        os._exit(code)
    print(child if asked["wait"] is False else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """A run's process when it is over; a negative code is the signal that killed it."""

    code: int
    out: str
    err: str


Launch = Callable[..., Ended]


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """`launch(*argv, at=None, threads=1)` runs the command line in a process of its own."""
    folder = tmp_path_factory.mktemp("launched")
    source = str(Path(__file__).resolve().parents[2] / "src")
    env = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder)}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def run(*argv: str | Path, at: tuple[str, str, int, int] | None = None, threads: int = 1) -> Ended:
        out, err = folder / "out", folder / "err"
        asked: dict[str, Any] = {"argv": list(map(str, argv)), "at": at, "threads": threads, "env": {}, "wait": True}
        server.stdin.write(json.dumps(asked | {"out": str(out), "err": str(err)}) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return Ended(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    yield run
    server.communicate(timeout=60)  # closes its input, at which it ends


@pytest.fixture
def finetune_words(tiny: Tiny) -> list[str]:
    """A command of 3 epochs of 6 steps; `--out` is to be added."""
    data = ["--model", tiny.model, "--train", tiny.train, "--dev", tiny.dev]
    settings = ["--epochs", 3, "--batch", 4, "--optim.lr", "1e-3", "--checkpoint-minutes", 0]
    return list(map(str, ["finetune", "classify", *data, *settings, "--precision", "float32"]))


@pytest.fixture
def embed_words(tiny: Tiny, tmp_path: Path) -> list[str]:
    """A command of 2 epochs of 4 steps, the last of one record; each step's loss is of all of its micro-batches."""
    texts = [record["text"] for record in labelled(50, 3)]
    pairs = [{"text_a": a, "text_b": b} for a, b in zip(texts[::2], texts[1::2], strict=True)]
    train = write_records(tmp_path / "pairs.jsonl", pairs)
    data = ["--model", tiny.model, "--train", train, "--dev", train]
    settings = ["--epochs", 2, "--batch", 8, "--optim.lr", "1e-3", "--batching.micro-tokens", 48]
    return list(map(str, ["finetune", "embed", *data, *settings, "--precision", "float32"]))


@pytest.fixture
def pretrain_words(tiny: Tiny) -> list[str]:
    """A command of 12 steps, 4 to 5 an epoch, with dropout, whose noise must be the same after a resume."""
    data = ["--model", tiny.model, "--text", tiny.text, "--dev", tiny.dev, "--corpus.workers", 1]
    settings = ["--steps", 12, "--step-tokens", 256, "--corpus.max-length", 24, "--checkpoint-minutes", 0]
    settings += ["--optim.method", "adamw", "--optim.dropout", "none"]
    return list(map(str, ["pretrain", *data, *settings, "--evaluate-every", 5, "--precision", "float32"]))


@pytest.fixture
def generate_words(tiny: Tiny) -> list[str]:
    """A command of 2 epochs of 3 steps, with dropout in encoder and decoder; dev is written after each epoch."""
    texts = [record["text"] for record in labelled(24, 3)]
    pairs = [{"source": a, "target": b} for a, b in zip(texts[::2], texts[1::2], strict=True)]
    train = write_records(tiny.train.with_name("written.jsonl"), pairs)
    data = ["--model", tiny.model, "--train", train, "--dev", train]
    settings = ["--epochs", 2, "--batch", 4, "--optim.lr", "1e-3", "--checkpoint-minutes", 0]
    settings += ["--generate.decoding.max-length", 8, "--generate.criterion", "log_likelihood"]
    return list(map(str, ["finetune", "generate", *data, *settings, "--precision", "float32"]))
