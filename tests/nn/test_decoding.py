"""The decoder and what is written with it: step by step as in one pass, alone as in company."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from bothways.batch import Example, Piece, Read, mix_seed, pack
from bothways.errors import ConfigError, Stopped
from bothways.infer.engine import Engine
from bothways.nn.cache import FIRST_ROOM
from bothways.nn.constraints import Constraints
from bothways.nn.decoder import Decoder
from bothways.nn.decoding import write_stepwise
from bothways.nn.decoding_settings import Decoding, Writing
from bothways.nn.encoder import Encoder, EncoderConfig
from bothways.nn.heads import MaskedHead
from bothways.nn.network import TEXT, Network

V, END = 40, 3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Threads cost more than they give in so small a network."""
    torch.set_num_threads(1)


def network_of(*, shared: bool = False, dropout: float = 0.0, seed: int = 8) -> Network:
    torch.manual_seed(seed)
    config = EncoderConfig(
        vocab_size=V,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=80,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.25,
    )
    encoder = Encoder(config, pooler=False)
    decoder = Decoder(config, shared=encoder if shared else None)
    head = MaskedHead(
        decoder.embeddings.word, activation=torch.nn.functional.gelu, layer_norm_eps=1e-12, initializer_range=0.25
    )
    with torch.no_grad():
        head.bias[END] += 3.0
    return Network(encoder, {TEXT: head}, decoder).eval()


def taught(lengths: Sequence[tuple[Sequence[int], int]]) -> list[Example]:
    """Examples of sources (in several windows) and targets of these lengths."""
    rng = np.random.default_rng(5)
    examples = []
    for number, (windows, size) in enumerate(lengths):
        pieces = tuple(Piece(rng.integers(4, V, length)) for length in windows)
        target = rng.integers(4, V, size)
        read = Read(np.arange(size), np.array([size]), labels=np.roll(target, -1), weight=float(size))
        examples.append(Example(pieces, {TEXT: read}, decoder=Piece(target), seed=mix_seed(1, number)))
    return examples


LENGTHS = [((7,), 5), ((30,), 1), ((7,), 9), ((12, 12, 3), 4), ((2,), 30), ((5, 4), 17)]


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_packed_is_alone(shared: bool, train: bool) -> None:
    network = network_of(shared=shared, dropout=0.2).train(train)
    examples = taught(LENGTHS)
    together = network(pack(examples))[TEXT].split([size for _, size in LENGTHS])
    for example, rows in zip(examples, together, strict=True):
        torch.testing.assert_close(network(pack([example]))[TEXT], rows, atol=1e-5, rtol=1e-5)


def test_a_target_reads_backwards_only_and_its_whole_source_only() -> None:
    network = network_of()
    (example,) = taught([((6, 5), 8)])
    assert example.decoder is not None

    def changed(side: str, at: int) -> torch.Tensor:
        pieces, decoder = [*example.pieces], example.decoder
        assert decoder is not None
        ids = (decoder if side == "target" else pieces[at // 6]).input_ids.copy()
        ids[at % 6 if side == "source" else at] = 39
        if side == "target":
            decoder = Piece(ids)
        else:
            pieces[at // 6] = Piece(ids)
        return network(pack([Example(tuple(pieces), example.reads, decoder=decoder)]))[TEXT]

    before = network(pack([example]))[TEXT]
    for at in range(8):
        after = changed("target", at)
        assert torch.equal(after[:at], before[:at])
        assert not torch.allclose(after[at:], before[at:])
    for at in (0, 5, 6, 10):
        assert (changed("source", at) - before).abs().amax(1).min() > 1e-5


def test_noise_of_source_and_target_differs() -> None:
    batch = pack(taught(LENGTHS))
    assert batch.decoder is not None
    assert batch.tokens.noise is not None
    assert batch.decoder.noise is not None
    assert not set(batch.tokens.noise.tolist()) & set(batch.decoder.noise.tolist())


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_step_by_step_is_one_pass(shared: bool, beams: int) -> None:
    """Beams that change their parents, sources that leave, more steps than there was room for at first."""
    network = network_of(shared=shared)
    rng = np.random.default_rng(2)
    steps = FIRST_ROOM + 9
    sources = sorted((rng.integers(4, V, size) for size in (3, 9, 9, 20)), key=len)
    batch = pack([Example((Piece(source),), {}, decoding=object()) for source in sources])
    assert batch.sources is not None
    with torch.inference_mode():
        cache = network.writer.begin(network.encoder(batch.tokens), batch.sources, beams=beams, most=steps)
        texts = np.zeros((len(sources), beams, 0), dtype=np.int64)
        for step in range(steps):
            texts = np.concatenate([texts, rng.integers(4, V, (len(sources), beams, 1))], axis=2)
            logits = network.next_logits(torch.from_numpy(texts[:, :, -1].reshape(-1)), cache)
            if step % 7 == 0 or step == steps - 1:
                flat = [(source, text) for source, some in zip(sources, texts, strict=True) for text in some]
                read = Read(np.array([step]), np.array([1]))
                wanted = network(pack([Example((Piece(s),), {TEXT: read}, decoder=Piece(t)) for s, t in flat]))[TEXT]
                torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=1e-5)
            parents = rng.integers(0, beams, (len(sources), beams))
            cache.follow(torch.from_numpy(parents))
            texts = np.take_along_axis(texts, parents[:, :, None], axis=1)
            if step in (4, FIRST_ROOM + 2):
                keep = np.array([0, 2, 3]) if step == 4 else np.array([0, 1])
                cache.keep(keep)
                texts, sources = texts[keep], [sources[number] for number in keep]


# ------------------------------------------------------------------------------------------------------- company


def to_write(count: int, decoding: Decoding, **more: Any) -> list[Example]:
    rng = np.random.default_rng(8)
    writing = Writing(decoding, 2, END, **more)
    return [
        Example((Piece(rng.integers(4, V, rng.integers(2, 40))),), {}, decoding=writing, seed=number)
        for number in range(count)
    ]


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(max_length=30),
        Decoding(max_length=30, beams=4, no_repeat_ngram=3),
        Decoding(max_length=30, sample=True, top_p=0.9, temperature=1.5),
    ],
    ids=["greedy", "beams", "sampling"],
)
def test_the_same_in_any_company(decoding: Decoding) -> None:
    network = network_of()
    examples = to_write(12, decoding)
    together = Engine(network, device=torch.device("cpu")).answers(examples)
    lengths = {len(answer.scores["ids"]) for answer in together}
    assert len(lengths) > 3
    reordered = Engine(network, device=torch.device("cpu")).answers(examples[::-1])[::-1]
    small = Engine(network, device=torch.device("cpu"), batch_tokens=60).answers(examples)
    alone = [Engine(network, device=torch.device("cpu")).run([example])[0] for example in examples]
    for others in (reordered, small, alone):
        for one, other in zip(together, others, strict=True):
            assert one.scores["ids"].tolist() == other.scores["ids"].tolist()
            assert float(one.scores["score"]) == pytest.approx(float(other.scores["score"]), abs=1e-5)


def test_what_is_written_differently_may_stand_together() -> None:
    network = network_of()
    engine = Engine(network, device=torch.device("cpu"))
    both = [*to_write(3, Decoding(max_length=9)), *to_write(3, Decoding(max_length=12, beams=2))]
    found = [answer.scores["ids"].tolist() for answer in engine.run(both)]
    apart = [answer.scores["ids"].tolist() for part in (both[:3], both[3:]) for answer in engine.run(part)]
    assert found == apart


def test_the_score_is_the_log_probability_of_the_text() -> None:
    network = network_of()
    for decoding in (Decoding(max_length=20), Decoding(max_length=20, beams=3, length_penalty=0.5)):
        for answer in Engine(network, device=torch.device("cpu")).answers(to_write(6, decoding)):
            ids = answer.scores["ids"].tolist() + [END] * bool(answer.scores["ended"])
            read = Read(np.arange(len(ids)), np.array([len(ids)]))
            given = Piece(np.array([2, *ids[:-1]]))
            with torch.no_grad():
                logits = network(pack([Example(answer.example.pieces, {TEXT: read}, decoder=given)]))[TEXT]
            wanted = logits.log_softmax(-1)[torch.arange(len(ids)), ids].sum() / len(ids) ** decoding.length_penalty
            assert float(answer.scores["score"]) == pytest.approx(float(wanted), abs=1e-4)


def test_sampling_follows_its_seed() -> None:
    network = network_of()
    engine = Engine(network, device=torch.device("cpu"))

    def texts(**options: Any) -> list[list[int]]:
        decoding = Decoding(max_length=20, sample=True, **options)
        return [answer.scores["ids"].tolist() for answer in engine.answers(to_write(8, decoding))]

    assert texts(seed=1) == texts(seed=1)
    assert texts(seed=1) != texts(seed=2)
    greedy = [a.scores["ids"].tolist() for a in engine.answers(to_write(8, Decoding(max_length=20)))]
    assert texts(top_k=1) == greedy
    assert texts(temperature=1e-5) == greedy
    assert texts(top_p=1e-6) == greedy
    assert texts(top_p=1e-60) == greedy, "nothing in float32"


def test_sources_leave_when_they_are_written() -> None:
    """No work is done for a target that has ended."""
    network = network_of()
    batch = pack(to_write(12, Decoding(max_length=30)))
    assert batch.sources is not None
    with torch.inference_mode():
        memory = network.encoder(batch.tokens)
        writing = Writing(Decoding(max_length=30), 2, END)
        steps = [*write_stepwise(network, memory, batch.sources, writing, [0] * 12)]
    for before, after in pairwise(steps):
        assert after.sources.tolist() == before.sources[before.tokens != END].tolist()
    assert len(steps[0].sources) == 12
    assert len({len(step.sources) for step in steps}) > 3


@pytest.mark.parametrize("beams", [1, 4])
def test_no_row_of_a_finished_source_reaches_the_decoder(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together, sources cost as many rows as each alone: none is computed once its target is written."""
    network = network_of()
    engine = Engine(network, device=torch.device("cpu"))
    examples = to_write(12, Decoding(max_length=30, beams=beams))
    rows: list[int] = []
    step = Decoder.step

    def counted(self: Decoder, ids: torch.Tensor, cache: Any) -> torch.Tensor:
        rows.append(len(ids))
        return step(self, ids, cache)

    monkeypatch.setattr(Decoder, "step", counted)
    engine.run(examples)
    together = [*rows]
    rows.clear()
    for example in examples:
        engine.run([example])
    assert together[0] == 12 * beams
    assert together == sorted(together, reverse=True)
    assert len(set(together)) > 3
    assert sum(together) == sum(rows)


@pytest.mark.parametrize("penalty", [-4.0, -6.0, -10.0])
def test_each_source_gets_a_target_however_low_the_scores(penalty: float) -> None:
    """A score is a log-probability times a power of the length: there is none below which nothing is written."""
    network = network_of()
    engine = Engine(network, device=torch.device("cpu"))
    examples = to_write(12, Decoding(max_length=70, min_length=20, beams=4, length_penalty=penalty))
    together = engine.run(examples)
    assert min(float(answer.scores["score"]) for answer in together) < -1e9
    for example, answer in zip(examples, together, strict=True):
        assert len(answer.scores["ids"]) >= 20
        assert engine.run([example])[0].scores["ids"].tolist() == answer.scores["ids"].tolist()


@pytest.mark.parametrize("way", [{}, {"beams": 3}, {"sample": True}], ids=["greedy", "beams", "sampling"])
def test_a_text_ends_where_nothing_may_follow(way: Any) -> None:
    """Every token has been written once, and no end may come yet: all that could follow is forbidden."""
    decoding = Decoding(max_length=70, min_length=69, no_repeat_ngram=1, **way)
    answers = Engine(network_of(), device=torch.device("cpu")).run(to_write(2, decoding))
    for answer in answers:
        written = answer.scores["ids"].tolist()
        assert len(set(written)) == len(written) < 40
        assert END not in written
        assert bool(answer.scores["ended"])
        assert np.isfinite(float(answer.scores["score"]))


# -------------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize(
    "decoding",
    [Decoding(max_length=30), Decoding(max_length=30, beams=4), Decoding(max_length=30, sample=True)],
    ids=["greedy", "beams", "sampling"],
)
def test_writing_stops_when_it_is_told_to(decoding: Decoding, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked before each step, so that at most one more is done for nobody."""
    network, steps, asked = network_of(), [], []
    engine = Engine(network, device=torch.device("cpu"))
    examples = to_write(6, decoding)
    wanted = [answer.scores["ids"].tolist() for answer in engine.answers(examples)]
    step = Decoder.step

    def counted(self: Decoder, ids: torch.Tensor, cache: Any) -> torch.Tensor:
        steps.append(len(ids))
        return step(self, ids, cache)

    def stop() -> bool:
        asked.append(len(steps))
        return len(steps) == 2

    monkeypatch.setattr(Decoder, "step", counted)
    for begin in (engine.run, engine.answers):
        with pytest.raises(Stopped, match=r"writing was stopped after 2 of at most 30 tokens; ask again for the whole"):
            begin(examples, stop=stop)
        assert asked == [0, 1, 2]
        steps.clear()
        asked.clear()
        assert [answer.scores["ids"].tolist() for answer in begin(examples, stop=lambda: False)] == wanted
        steps.clear()


# --------------------------------------------------------------------------------------------------- constraints


def allowed(
    texts: list[list[int]],
    decoding: Decoding,
    forbidden: tuple[tuple[int, ...], ...] = (),
    pieces: int | None = None,
) -> list[set[int]]:
    logits = torch.zeros(len(texts), 10)
    constrain = Constraints(Writing(decoding, 2, END, forbidden, pieces), logits.device)
    constrain(logits, np.array(texts))
    return [set(torch.nonzero(row == 0.0).flatten().tolist()) for row in logits]


def test_constraints() -> None:
    every = set(range(10))
    assert allowed([[2, 5]], Decoding()) == [every]
    assert allowed([[2, 5]], Decoding(min_length=1)) == [every]  # one token stands there already
    assert allowed([[2, 5]], Decoding(min_length=2)) == [every - {END}]
    repeats = Decoding(no_repeat_ngram=2)
    assert allowed([[2, 5, 6, 5], [2, 5, 6, 7]], repeats) == [every - {6}, every]
    assert allowed([[2, 5, 6, 5, 7, 5]], repeats) == [every - {6, 7}]
    assert allowed([[2, 5, 6, 5]], Decoding(no_repeat_ngram=1)) == [every - {2, 5, 6}]
    assert allowed([[2, 5]], Decoding(no_repeat_ngram=4)) == [every]
    assert allowed([[2, 5, 6], [2, 6, 5]], Decoding(), ((9,), (5, 6, 7), (5, 8))) == [every - {9, 7}, every - {9, 8}]
    runs = ((9,), (5, 6, 7), (5, 8), (5, 6, 4), (6, 0), (0,), (5, 6, 7, 8))
    assert allowed([[2, 5, 6], [2, 6, 5]], Decoding(), runs) == [every - {9, 7, 4, 0}, every - {9, 8, 0}]
    assert allowed([[2]], Decoding(), ((2, 5), (2, 5, 6))) == [every - {5}]
    assert allowed([[2, 5]], Decoding(), ((0,),), pieces=7) == [{1, 2, 3, 4, 5, 6}], "what lies beyond the tokenizer"
    assert allowed([[2, 5]], Decoding(), pieces=10) == [every]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 0}, "beams is 0; it must be at least 1"),
        ({"max_length": 0}, "max_length is 0"),
        ({"min_length": -1}, "min_length is -1"),
        ({"min_length": 9, "max_length": 5}, "min_length is 9, which is more than max_length, 5"),
        ({"top_k": 0, "sample": True}, "top_k is 0; it must be at least 1, or none"),
        ({"top_p": 1.5, "sample": True}, "top_p is 1.5; it must lie in"),
        ({"temperature": 0.0, "sample": True}, "temperature is 0.0; it must lie between 1e-06 and 1000000.0"),
        ({"temperature": 1e308, "sample": True}, r"temperature is 1e\+308; it must lie between"),
        ({"beams": 65}, "beams is 65; it must be at most 64"),
        ({"length_penalty": 1000.0}, "length_penalty is 1000.0; it must lie between -10 and 10"),
        ({"length_penalty": float("nan"), "beams": 2}, "length_penalty is nan; it must lie between -10 and 10"),
        ({"temperature": 0.5}, "temperature is 0.5, which is for sampling; say sample too"),
        ({"sample": True, "beams": 4}, "beams is 4 and sample is on; one of the two"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram is 0"),
    ],
)
def test_settings_that_can_not_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Decoding(**settings)
