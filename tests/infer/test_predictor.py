"""The predictor: answers in the order of the input, the same in any batch, and one line for what can't be read."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bothways
from bothways.batch import Example, Piece, Read
from bothways.data.record import Record
from bothways.errors import BothwaysError, ConfigError, DataError, ModelError
from bothways.infer import answering as module
from bothways.infer.engine import BATCH_TOKENS, Engine, by_length
from bothways.infer.inputs import records_of
from bothways.infer.predictor import Predictor
from bothways.models.model import Model, fresh, save
from bothways.nn.decoding_settings import Decoding, Writing
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.base import Answer, Encoded
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *"今天气很好。"]
CONFIG = EncoderConfig(
    vocab_size=40,  # more than the tokenizer has
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=12,
)


def model_of(task: Any) -> Model:
    """Random, and lively enough that texts differ in their scores."""
    torch.manual_seed(4)
    model = fresh(CONFIG, Tokenizer.from_vocab(VOCABULARY), task)
    for name, parameter in model.network.named_parameters():
        nn.init.normal_(parameter, mean=float("norm.weight" in name), std=0.5)
    return model


def classifier(**settings: Any) -> Predictor:
    task = ClassifyTask(ClassifySettings(**settings), "one", ["bad", "good", "so so"])
    return Predictor(model_of(task), device="cpu")


@pytest.fixture(scope="module")
def masked() -> Predictor:
    return Predictor(model_of(PretrainTask("next")), device="cpu")


def random_texts(count: int, *, longest: int = 15) -> list[str]:
    rng = np.random.default_rng(2)
    return [" ".join(rng.choice(list(LETTERS), rng.integers(1, longest + 1))) for _ in range(count)]


def message(kind: type[BothwaysError], action: Any) -> str:
    """The one line that a mistake is answered with."""
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(mine: dict[str, Any], other: dict[str, Any]) -> None:
    assert mine["label"] == other["label"]
    assert mine["scores"] == pytest.approx(other["scores"], abs=1e-5)
    assert mine["tokens"] == other["tokens"]


# ------------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("long", ["first", "mean"])
def test_answers_are_the_same_in_any_batch_and_in_order(long: str) -> None:
    predictor, texts = classifier(long=long), random_texts(16)
    alone = [predictor.predict([text])[0] for text in texts]
    assert len({prediction["label"] for prediction in alone}) > 1
    assert len({prediction["score"] for prediction in alone}) > 12
    for batch_tokens in (1, 40, 400):
        predictor.engine.batch_tokens = batch_tokens
        for mine, other in zip(predictor.predict(texts), alone, strict=True):
            assert_same(mine, other)


def test_inputs_of_all_kinds() -> None:
    predictor = classifier()
    (wanted,) = predictor.predict(["a b"])
    assert sum(wanted["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert wanted["score"] == pytest.approx(max(wanted["scores"].values()), abs=1e-6)
    assert predictor.predict("a b") == [wanted]
    assert predictor.predict([{"text": "a b", "id": 7}]) == [wanted]
    assert predictor.predict({"text": "a b"}) == [wanted]
    assert predictor.predict([]) == []


def test_pairs_are_records_of_two_texts() -> None:
    records = list(records_of([("a", "b"), ["c", "d"]]))
    assert [record.fields for record in records] == [{"text_a": "a", "text_b": "b"}, {"text_a": "c", "text_b": "d"}]
    assert [record.line for record in records] == [1, 2]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (["a", ""], "<records>:2: the text is empty"),
        (["a", "b", " \t\u200b\n"], "<records>:3: the text is empty"),
        (["a", 5], "<records>:2: a text, a pair of texts or a record was wanted, found int"),
        ([None], "<records>:1: a text, a pair of texts or a record was wanted, found NoneType"),
        ([("a", "b", "c")], "<records>:1: a text, a pair of texts or a record was wanted, found tuple"),
        ([{"text": 5}], "<records>:1: 'text' is"),
        ([{"txt": "a"}], "<records>:1: no field 'text'; there are 'txt'"),
        ([("a", "b")], "<records>:1: no field 'text'"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_told_with_its_place(inputs: Any, text: str) -> None:
    assert message(DataError, lambda: classifier().predict(inputs)).startswith(text)


def test_a_long_text_tells_what_was_not_read() -> None:
    text = " ".join(LETTERS[:25])  # 25 tokens; a window holds 10
    (first,) = classifier().predict([text])
    assert first["tokens"] == {"kept": 10, "dropped": 15}
    (mean,) = classifier(long="mean").predict([text])
    assert mean["tokens"] == {"kept": 25}
    assert classifier().predict(["a b c"])[0]["tokens"] == {"kept": 3}
    shorter = Predictor(classifier().model, device="cpu", max_length=5)
    assert shorter.predict([text])[0]["tokens"] == {"kept": 3, "dropped": 22}
    assert Predictor(classifier().model, device="cpu", max_length=99).max_length == 12, (
        "the model has no more positions"
    )


def test_windows_answer_with_their_mean() -> None:
    windows = [" ".join(LETTERS[:10]), " ".join(LETTERS[10:20]), " ".join(LETTERS[20:23])]
    predictor = classifier(long="mean")
    (whole,) = predictor.predict([" ".join(windows)])

    def logits(text: str) -> np.ndarray:
        (encoded,) = predictor.encode([Record({"text": text}, "x", 1)])
        return predictor.engine.answers(encoded.examples)[0].scores["label"][0]

    mean = np.mean([logits(window) for window in windows], axis=0)
    probabilities = np.exp(mean) / np.exp(mean).sum()
    assert list(whole["scores"].values()) == pytest.approx(probabilities.tolist(), abs=1e-5)


@pytest.fixture
def chunk(monkeypatch: pytest.MonkeyPatch) -> int:
    """Few enough records that several chunks take no time."""
    monkeypatch.setattr(module, "CHUNK", 16)
    return 16


def test_streaming_asks_for_a_chunk_at_a_time(chunk: int) -> None:
    """So memory stays flat: no record beyond the chunk after the one being answered has been asked for."""
    asked = 0

    def records() -> Iterator[Record]:
        nonlocal asked
        for asked in range(1, 3 * chunk + 6):
            yield Record({"text": LETTERS[asked % 26]}, "endless.txt", asked)

    predictor = classifier()
    alone = {letter: predictor.predict([letter])[0] for letter in LETTERS}
    count = 0
    for count, prediction in enumerate(predictor.stream(records()), start=1):
        assert asked <= (-(-count // chunk) + 1) * chunk
        assert_same(prediction, alone[LETTERS[count % 26]])
    assert count == 3 * chunk + 5


def test_while_a_chunk_is_computed_the_next_is_tokenised(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk's forward pass waits until the chunk after it has been encoded."""
    predictor, encoded, waited = classifier(), [threading.Event() for _ in range(4)], []
    encode = Predictor.encode

    def noted(self: Predictor, records: Sequence[Record], **options: Any) -> list[Encoded]:
        found = encode(self, records, **options)
        encoded[options["first"] // chunk].set()
        return found

    def answers(examples: Sequence[Example]) -> list[Answer]:
        waited.append(len(waited) == 3 or encoded[len(waited) + 1].wait(timeout=10))
        return engine.answers(examples)

    engine, predictor.engine = predictor.engine, SimpleNamespace(answers=answers)  # type: ignore[assignment]
    monkeypatch.setattr(Predictor, "encode", noted)
    texts = random_texts(3 * chunk + 1)
    assert len(list(predictor.stream(records_of(texts)))) == len(texts)
    assert waited == [True] * 4


def test_records_are_numbered_through_the_stream(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = classifier()
    numbers: list[int] = []

    def answers(examples: Sequence[Example]) -> list[Answer]:
        numbers.extend(piece.origin.record for example in examples for piece in example.pieces if piece.origin)
        return engine.answers(examples)

    engine, predictor.engine = predictor.engine, SimpleNamespace(answers=answers)  # type: ignore[assignment]
    predictor.predict(["a"] * (2 * chunk + 3))
    assert numbers == list(range(2 * chunk + 3))


def test_streaming_takes_a_list_too(chunk: int) -> None:
    """A list has no place that is kept between chunks, which must not turn into an endless run."""
    predictor, texts = classifier(), list(LETTERS[: chunk + 2])
    stream = predictor.stream(list(records_of(texts)))  # type: ignore[arg-type]
    assert list(islice(stream, 2 * len(texts))) == predictor.predict(texts)


def test_an_error_far_down_a_stream_comes_after_what_was_answered(chunk: int) -> None:
    inputs = ["a"] * chunk + ["b", ""]
    stream = classifier().stream(records_of(inputs))
    assert len([next(stream) for _ in range(chunk)]) == chunk
    assert message(DataError, lambda: next(stream)).startswith(f"<records>:{chunk + 2}: the text is empty")


def test_evaluate_counts_what_it_read() -> None:
    predictor, texts = classifier(), random_texts(30, longest=14)
    labels = [prediction["label"] for prediction in predictor.predict(texts)]
    records = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    scores = predictor.evaluate(records)
    sizes = [len(text.split()) for text in texts]
    assert scores["accuracy"] == 1.0
    assert scores["records"] == 30
    assert scores["tokens"] == sum(min(size, 10) for size in sizes)
    assert scores["tokens_dropped"] == sum(max(size - 10, 0) for size in sizes) > 0
    assert scores["seconds"] >= 0
    assert "there is no record to evaluate on" in message(DataError, lambda: predictor.evaluate([]))
    unknown = [*records, {"text": "a", "label": "goood"}]
    assert "did you mean 'good'?" in message(DataError, lambda: predictor.evaluate(unknown))


# ---------------------------------------------------------------------------------------------------- masks


def test_masks_are_filled_where_they_stand(masked: Predictor) -> None:
    texts = ["今天天气很[MASK]。", "a [MASK] b [MASK]", "[MASK]"]
    filled = masked.fill_mask(texts, top=3)
    for text, masks in zip(texts, filled, strict=True):
        assert [mask["mask"] for mask in masks] == list(range(text.count("[MASK]")))
        assert {text[mask["start"] : mask["end"]] for mask in masks} == {"[MASK]"}
        for mask in masks:
            values = [filling["score"] for filling in mask["fillings"]]
            assert len(values) == 3
            assert values == sorted(values, reverse=True)
            assert not {filling["token"] for filling in mask["fillings"]} & {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}
    assert filled[1][0]["start"] < filled[1][1]["start"]
    assert masked.fill_mask(texts[2]) == masked.fill_mask(texts[2:])
    (every,) = masked.fill_mask("a [MASK]", top=100)[0]
    assert sum(filling["score"] for filling in every["fillings"]) == pytest.approx(1, abs=1e-4)
    assert {filling["token"] for filling in every["fillings"]} == set(VOCABULARY) - set(VOCABULARY[:5])


def test_masks_are_filled_the_same_in_any_batch(masked: Predictor) -> None:
    texts = [f"{text} [MASK]" for text in random_texts(12, longest=9)]
    for mine, text in zip(masked.fill_mask(texts), texts, strict=True):
        (alone,) = masked.fill_mask([text])
        assert [f["token"] for f in mine[0]["fillings"]] == [f["token"] for f in alone[0]["fillings"]]
        scores = [f["score"] for f in alone[0]["fillings"]]
        assert [f["score"] for f in mine[0]["fillings"]] == pytest.approx(scores, abs=1e-5)


def test_masks_are_the_heads_argmax(masked: Predictor) -> None:
    tokenizer, network = masked.model.tokenizer, masked.model.network
    ids = [tokenizer.id(token) for token in ("[CLS]", "a", "[MASK]", "c", "[SEP]")]
    reads = {name: Read(np.array([2 if name == "masked" else 0]), np.array([1])) for name in network.heads}
    (answer,) = masked.engine.answers([Example((Piece(np.array(ids)),), reads)])
    logits = answer.scores["masked"][0][5 : len(VOCABULARY)]
    best = masked.fill_mask("a [MASK] c", top=1)[0][0]["fillings"][0]
    assert best["token"] == VOCABULARY[5 + int(logits.argmax())]
    assert best["score"] == pytest.approx(float(np.exp(logits.max()) / np.exp(logits).sum()), abs=1e-5)


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        (["[MASK]", "今天"], "<texts>:2: '今天' has no [MASK] to fill"),
        (["[mask]"], "<texts>:1: '[mask]' has no [MASK] to fill"),
        ([""], "<texts>:1: '' has no [MASK] to fill"),
        (["a " * 10 + "[MASK]"], "<texts>:1: the text has 11 tokens, the model reads 10; shorten it"),
        (["[MASK]", None], "<texts>:2: a text was wanted, found NoneType"),
    ],
    ids=str,
)
def test_texts_whose_masks_cannot_be_filled(texts: list[Any], text: str, masked: Predictor) -> None:
    assert message(DataError, lambda: masked.fill_mask(texts)) == text


# ------------------------------------------------------------------------------------------------- models


def test_a_model_answers_only_what_it_was_trained_for(masked: Predictor, tmp_path: Path) -> None:
    assert masked.can_fill_masks
    assert not classifier().can_fill_masks
    folder = save(masked.model, tmp_path / "model")
    told = message(ModelError, lambda: bothways.load(folder, device="cpu").predict(["a"]))
    assert told.startswith(f"{folder}: this model was pre-trained but has no task yet; fine-tune it first")
    assert message(ModelError, lambda: masked.predict(["a"])).startswith("<model>: this model was pre-trained")
    assert "no masked-LM head" in message(ModelError, lambda: classifier().fill_mask("[MASK]"))


def test_loaded_as_saved(tmp_path: Path) -> None:
    predictor, texts = classifier(), random_texts(10)
    folder = save(predictor.model, tmp_path / "run" / "model")
    for name in (folder, str(folder), folder.parent):
        assert bothways.load(name, device="cpu").predict(texts) == predictor.predict(texts)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"precision": "float16"}, "precision is 'float16'; wanted one of auto, float32, bfloat16, int8"),
        ({"max_length": 2}, "max_length is 2; wanted at least 3: [CLS], one token of text, [SEP]"),
        ({"max_length": -1}, "max_length is -1"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any], text: str) -> None:
    assert message(ConfigError, lambda: Predictor(classifier().model, **settings)).startswith(text)


def test_bfloat16_is_near() -> None:
    predictor, texts = classifier(), random_texts(20)
    wanted = predictor.predict(texts)
    near = Predictor(predictor.model, device="cpu", precision="bfloat16").predict(texts)
    for mine, other in zip(near, wanted, strict=True):
        assert mine["scores"] == pytest.approx(other["scores"], abs=0.1)
    assert near != wanted


def test_the_engine_leaves_the_network_as_it_found_it() -> None:
    """A run that scores between two epochs goes on with dropout."""
    network = classifier().model.network.train()
    engine = Engine(network, device=torch.device("cpu"))
    example = Example((Piece(np.array([2, 5, 3])),), {"label": Read(np.array([0]), np.array([1]))})
    assert np.array_equal(engine.run([example])[0].scores["label"], engine.run([example])[0].scores["label"])
    assert network.training


def test_batches_are_of_near_length_and_bounded() -> None:
    rng = np.random.default_rng(0)
    examples = [Example((Piece(np.zeros(size, dtype=int)),), {}) for size in rng.integers(1, 50, 200)]
    batches = list(by_length(examples, 100))
    assert sorted(number for batch in batches for number in batch) == list(range(200))
    for batch in batches:
        assert len(batch) == 1 or sum(examples[number].tokens for number in batch) <= 100
    sizes = [examples[number].tokens for batch in batches for number in batch]
    assert sizes == sorted(sizes, reverse=True), "the longest first, so that memory runs out at once or never"
    assert [len(batch) for batch in by_length(examples[:3], 1)] == [1, 1, 1]
    told: list[int] = []
    predictor = classifier()
    encoded = predictor.encode(list(records_of(random_texts(50))))
    given = [example for one in encoded for example in one.examples]
    predictor.engine.answers(given, progress=told.append)
    assert sum(told) == sum(example.tokens for example in given)


def sources(count: int, size: int, **decoding: Any) -> list[Example]:
    writing = Writing(Decoding(**decoding), 2, 3)
    return [Example((Piece(np.zeros(size, dtype=int)),), {}, decoding=writing) for _ in range(count)]


def test_batches_of_texts_to_write_are_bounded_by_beams_and_lengths() -> None:
    """What is written takes memory too: keys and values of each beam, and at each step a row over all pieces."""

    def most(*given: Any, **decoding: Any) -> int:
        examples = sources(*given, **decoding)
        batches = [*by_length(examples, BATCH_TOKENS["cpu"])]
        assert sorted(number for batch in batches for number in batch) == [*range(len(examples))]
        return max(map(len, batches))

    assert most(32, 64, beams=4, max_length=192) == 32, "as many as are written fastest together"
    assert most(600, 15) == 120, "greedily as many as are read together"
    for size in (3, 15, 60):
        for beams in (1, 4, 48, 64):
            for length in (1, 3, 128, 512):
                together = most(600, size, beams=beams, max_length=length)
                assert together * beams <= 512
                assert together == 1 or together * beams * (size + length) <= 16 * 2048
                assert together * size <= 2048
    assert most(3, 500, beams=64, max_length=512) == 1


def test_embedding_again_lays_nothing_out_anew(masked: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, made, embedder = copy.copy(masked), [], Predictor.embedder
    monkeypatch.setattr(Predictor, "embedder", lambda self, **asked: made.append(asked) or embedder(self, **asked))
    first = predictor.embed(["a b"])
    assert np.array_equal(predictor.embed(["a b"]), first)
    assert len(made) == 1
    predictor.embed(["a b"], pooling="max")
    predictor.embed(["a b"])
    assert len(made) == 3


def test_scores_of_all_pieces_are_held_for_some_texts_at_a_time(
    masked: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, asked = ["a [MASK]", "[MASK] [MASK]", "b [MASK]"], []
    wanted, answers = masked.fill_mask(texts), Engine.answers

    def counted(engine: Engine, examples: Sequence[Example]) -> list[Answer]:
        asked.append(len(examples))
        return answers(engine, examples)

    monkeypatch.setattr(module, "MOST_SCORES", 2 * len(masked.model.network.heads["masked"].matrix))  # type: ignore[arg-type]
    monkeypatch.setattr(Engine, "answers", counted)
    found = masked.fill_mask(texts)
    assert asked == [1, 1, 1]
    for mine, other in zip(chain(*found), chain(*wanted), strict=True):
        assert [one["token"] for one in mine["fillings"]] == [one["token"] for one in other["fillings"]]
