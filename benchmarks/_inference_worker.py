"""One engine for `inference.py`, in a process of its own: loads a model once, then answers `run` lines with seconds."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Ids = list[list[int]]
Embed = Callable[[Ids], np.ndarray]  # texts as token ids → one mean vector each
BATCH = 32  # texts in a peer's batch, which is sorted by length
MATRIX = 2048  # rows and columns of the products whose rate is measured


# ---------------------------------------------------------------------------------------------- Bothways


def bothways(folder: Path, precision: str, threads: int) -> Embed:
    """Mean vectors by the engine as it is used for any task."""
    import torch

    from bothways.batch import Example, Piece, Read
    from bothways.infer.engine import Engine
    from bothways.models.model import load
    from bothways.nn.heads import Head, mean_by_group
    from bothways.nn.network import Network

    class Mean(Head):
        per = "group"

        def forward(self, rows: Any, noise: Any, groups: Any) -> Any:
            return mean_by_group(rows, groups)

    torch.set_num_threads(threads)
    encoder = load(folder).network.encoder
    engine = Engine(Network(encoder, {"vector": Mean()}).eval(), device=torch.device("cpu"), precision=precision)
    engine.ready(1 << 20)  # enough to come that compiling pays

    def embed(texts: Ids) -> np.ndarray:
        examples = [
            Example((Piece(np.array(ids)),), {"vector": Read(np.arange(len(ids)), np.array([len(ids)]))})
            for ids in texts
        ]
        return np.concatenate([answer.scores["vector"] for answer in engine.answers(examples)])

    return embed


def matrix_rate(precision: str, threads: int) -> float:
    """Operations a second of a large product, at best; two for each multiplication and addition."""
    import torch

    from bothways.infer.quantised import Int8Weight, quantise

    torch.set_num_threads(threads)
    with torch.inference_mode():
        if precision == "int8":
            weight = Int8Weight.of(torch.nn.Linear(MATRIX, MATRIX, bias=False))
            whole, _, _ = quantise(torch.randn(MATRIX, MATRIX))
            product = lambda: weight.sums(whole)  # noqa: E731
        else:
            x, w = (torch.randn(MATRIX, MATRIX).to(getattr(torch, precision)) for _ in range(2))
            packed = torch.ops.mkldnn._reorder_linear_weight(w)
            product = lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")  # noqa: E731
        seconds = []
        for _ in range(8):
            begun = time.perf_counter()
            product()
            seconds.append(time.perf_counter() - begun)
    return 2 * MATRIX**3 / min(seconds)


# ------------------------------------------------------------------------------------------------- peers


def _padded(batches: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Embed:
    """Sorted by length, in padded batches; `batches` gives the last layer of ids and mask, (n, t, d)."""

    def embed(texts: Ids) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        vectors: list[Any] = [None] * len(texts)
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            width = len(texts[chosen[0]])
            ids, mask = np.zeros((len(chosen), width), np.int64), np.zeros((len(chosen), width), np.int64)
            for row, number in enumerate(chosen):
                ids[row, : len(texts[number])] = texts[number]
                mask[row, : len(texts[number])] = 1
            hidden = batches(ids, mask)
            means = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
            for row, number in enumerate(chosen):
                vectors[number] = means[row]
        return np.stack(vectors)

    return embed


def transformers(folder: Path, precision: str, threads: int) -> Embed:
    """BertModel with PyTorch's fused attention, weights in `precision`; sentence-transformers runs the same."""
    import torch
    from transformers import BertModel

    torch.set_num_threads(threads)
    dtype = getattr(torch, precision)
    model = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa").to(dtype).eval()

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            return model(**given).last_hidden_state.float().numpy()

    return _padded(run)


def _onnx_file(folder: Path) -> Path:
    """The model as ONNX, with any batch and length."""
    path = folder / "onnx" / "model.onnx"
    if not path.is_file():
        import torch
        from transformers import BertModel

        path.parent.mkdir(exist_ok=True)
        model = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").eval()

        class Hidden(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, ids: Any, mask: Any) -> Any:
                return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

        example = (torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64))
        names = ["input_ids", "attention_mask"]
        axes = {name: {0: "n", 1: "t"} for name in [*names, "hidden"]}
        torch.onnx.export(
            Hidden(), example, str(path), input_names=names, output_names=["hidden"], dynamic_axes=axes, dynamo=False
        )
    return path


def onnxruntime(folder: Path, precision: str, threads: int) -> Embed:
    """Fused by its own optimizer for BERT; int8 by dynamic quantisation, a scale for each channel."""
    import onnx
    import onnxruntime as ort
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    plain = _onnx_file(folder)
    fused = plain.with_name("fused.onnx")
    if not fused.is_file():
        shape = json.loads((folder / "config.json").read_text())
        heads, width = shape["num_attention_heads"], shape["hidden_size"]
        optimizer.optimize_model(str(plain), "bert", num_heads=heads, hidden_size=width).save_model_to_file(str(fused))
    if precision == "int8":
        fused, source = fused.with_name("int8.onnx"), fused
        if not fused.is_file():
            untyped = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # shapes aren't inferred past fused nodes
            quantize_dynamic(
                str(source), str(fused), per_channel=True, weight_type=QuantType.QInt8, extra_options=untyped
            )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(str(fused), options, providers=["CPUExecutionProvider"])
    known = {given.name: given.type for given in session.get_inputs()}

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        values = {"input_ids": ids, "attention_mask": mask}
        kinds = {name: np.int32 if "int32" in known[name] else np.int64 for name in known}
        return session.run(None, {name: values[name].astype(kinds[name]) for name in known})[0]

    return _padded(run)


def openvino(folder: Path, precision: str, threads: int) -> Embed:
    """Compiled for this CPU, with a hint at the precision."""
    import openvino as ov

    core = ov.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(str(_onnx_file(folder))), "CPU", hints)
    request = compiled.create_infer_request()

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.asarray(request.infer({"input_ids": ids, "attention_mask": mask})[0], np.float32)

    return _padded(run)


def ctranslate2(folder: Path, precision: str, threads: int) -> Embed:
    """Its own encoder, which leaves padding out of the feed-forward layers."""
    import ctranslate2 as ct2
    from ctranslate2.converters import TransformersConverter

    made = folder / "ctranslate2"
    if not made.is_dir():
        TransformersConverter(str(folder)).convert(str(made))
    encoder = ct2.Encoder(str(made), device="cpu", compute_type=precision, inter_threads=1, intra_threads=threads)

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        rows = [row[:length].tolist() for row, length in zip(ids, mask.sum(1), strict=True)]
        return np.asarray(encoder.forward_batch(rows).last_hidden_state, np.float32)

    return _padded(run)


ENGINES: dict[str, Callable[[Path, str, int], Embed]] = {
    "bothways": bothways,
    "transformers": transformers,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "ctranslate2": ctranslate2,
}


def main(argv: Sequence[str]) -> int:
    """Serve one engine: each line in names the texts to run and how many of their vectors to give back."""
    engine, precision, folder, threads = argv[1], argv[2], Path(argv[3]), int(argv[4])
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not mix with the answers
    embed = ENGINES[engine](folder, precision, threads)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if "rate" in job:
            told: dict[str, Any] = {"rate": matrix_rate(job["rate"], threads)}
        else:
            begun = time.perf_counter()
            vectors = embed(job["texts"])
            told = {"seconds": time.perf_counter() - begun, "vectors": vectors[: job.get("vectors", 0)].tolist()}
        print(json.dumps(told), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
