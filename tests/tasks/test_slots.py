"""Tests of intents with their slots: windows, loss, both heads saved beside the encoder, messages, learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertModel

from bothways.batch import pack
from bothways.data.record import IN_MEMORY, Record
from bothways.errors import BothwaysError, ConfigError, DataError, ModelError
from bothways.infer.predictor import Predictor
from bothways.metrics.spans import spans
from bothways.models.model import load, save, start_from
from bothways.tasks.base import Answer
from bothways.tasks.labels import UNSEEN
from bothways.tasks.slots import SlotsSettings, SlotsTask

GIVEN = [
    {"tokens": ["play", "ab", "c"], "tags": ["O", "B-artist", "I-artist"], "intent": "Play"},
    {"tokens": ["go", "to", "abc", "now"], "tags": ["O", "O", "B-city", "B-time"], "intent": "Go#Time"},
    {"tokens": ["北京", "de", "fg"] * 9, "tags": ["B-city", "O", "O"] * 9, "intent": "Go#Time"},
]


def _oracle(task: SlotsTask, record: Record, encoded: Any) -> dict[str, Any]:
    """The prediction from scores that are certain of the gold labels."""
    (example,) = encoded.examples
    scores = {}
    for head, names in (("slots", task.tags.names), ("intent", task.intents)):
        labels = example.reads[head].labels
        scores[head] = np.full((len(labels), len(names)), -9.0, dtype=np.float32)
        scores[head][np.arange(len(labels)), labels] = 9.0
    return task.decode(record, [Answer(example, scores)])


@pytest.mark.parametrize("max_length", [8, 13, 64])
def test_perfect_scores_give_gold_frames_in_windows_too(max_length: int, as_records: Any, tokenizer: Any) -> None:
    records = as_records(GIVEN)
    task = SlotsTask.learn(records, SlotsSettings(stride=4))
    encoded = task.encode(records, tokenizer, max_length=max_length, labelled=True)
    assert (len(encoded[2].examples[0].pieces) > 1) == (max_length < 64)
    assert all(len(piece.input_ids) <= max_length for one in encoded for piece in one.examples[0].pieces)
    for one in encoded:  # the first piece of each word is read once, the [CLS] of each window
        (example,) = one.examples
        ids = np.concatenate([piece.input_ids for piece in example.pieces])
        assert (ids[example.reads["intent"].rows] == tokenizer.cls_id).all()
        assert len(example.reads["intent"].rows) == len(example.pieces)
        assert one.coverage.dropped == 0
    predictions = [_oracle(task, record, one) for record, one in zip(records, encoded, strict=True)]
    assert [one["tags"] for one in predictions] == [record["tags"] for record in GIVEN]
    assert [one["intent"] for one in predictions] == [record["intent"] for record in GIVEN]
    assert predictions[0]["slots"][0] | {"score": 1} == {
        "label": "artist", "words": ["ab", "c"], "first": 1, "last": 2, "score": 1,
    }  # fmt: skip
    scores = task.metrics(records, predictions)
    assert scores["slot_f1"] == scores["intent_accuracy"] == scores["frame_accuracy"] == 1.0


@drawn(text=st.text(min_size=1, max_size=30), seed=st.integers(0, 9))
def test_offsets_of_slots_are_exact_for_any_text(tokenizer: Any, as_records: Any, text: str, seed: int) -> None:
    task = SlotsTask.learn(as_records(GIVEN), SlotsSettings())
    record = Record({"text": text}, IN_MEMORY, 1)
    if not text.strip():
        with pytest.raises(DataError, match="the text is empty"):
            task.encode([record], tokenizer, max_length=16, labelled=False)
        return
    (encoded,) = task.encode([record], tokenizer, max_length=16, labelled=False)
    (example,) = encoded.examples
    random = np.random.default_rng(seed)
    words = len(example.reads["slots"].rows)
    scores = {
        "slots": random.normal(size=(words, len(task.tags.names))).astype(np.float32),
        "intent": random.normal(size=(1, len(task.intents))).astype(np.float32),
    }
    prediction = task.decode(record, [Answer(example, scores)])
    assert len(prediction["tags"]) == len(prediction["words"]) == words
    assert task.tags.impossible(prediction["tags"]) is None
    found = [span for span in spans(prediction["tags"]) if span.label != "V"]
    for slot, span in zip(prediction["slots"], found, strict=True):
        assert text[slot["start"] : slot["end"]] == slot["text"]
        assert "".join(slot["text"].split()) == "".join(prediction["words"][span.start : span.end])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_equal_plain_pytorch_on_padded_data(
    smoothing: float, as_records: Any, make_model: Any, padded: Any, tmp_path: Path
) -> None:
    records = as_records(GIVEN)
    task = SlotsTask.learn(records, SlotsSettings(label_smoothing=smoothing))
    model = make_model(task)
    folder = save(model, tmp_path / "model")
    theirs = BertModel.from_pretrained(folder).eval()
    heads = load_file(folder / "heads.safetensors")
    assert sorted(heads) == [
        f"heads.{head}.linear.{part}" for head in ("intent", "slots") for part in ("bias", "weight")
    ]
    examples = [one.examples[0] for one in task.encode(records, model.tokenizer, max_length=64, labelled=True)]
    batch = pack(examples)
    scores = model.network.eval()(batch)
    losses = task.losses(scores, batch)
    output = theirs(**padded(examples))

    intents = output.pooler_output @ heads["heads.intent.linear.weight"].T + heads["heads.intent.linear.bias"]
    assert torch.allclose(scores["intent"], intents, atol=1e-5)
    gold = torch.tensor([task.intents.index(record["intent"]) for record in GIVEN])
    wanted = torch.nn.functional.cross_entropy(intents, gold, label_smoothing=smoothing)
    assert torch.allclose(losses["intent"] / batch.targets["intent"].weight, wanted, atol=1e-5)

    tags = output.last_hidden_state @ heads["heads.slots.linear.weight"].T + heads["heads.slots.linear.bias"]
    gold = torch.full(tags.shape[:2], -100)
    for row, (example, record) in enumerate(zip(examples, GIVEN, strict=True)):
        gold[row, example.reads["slots"].rows] = torch.tensor([task.tags.names.index(tag) for tag in record["tags"]])
    wanted = torch.nn.functional.cross_entropy(tags.flatten(0, 1), gold.flatten(), label_smoothing=smoothing)
    assert torch.allclose(losses["slots"] / batch.targets["slots"].weight, wanted, atol=1e-5)


def test_a_saved_model_predicts_the_same(as_records: Any, make_model: Any, tmp_path: Path) -> None:
    task = SlotsTask.learn(as_records(GIVEN), SlotsSettings(stride=2, decode="greedy"))
    model = make_model(task, positions=16)
    given = ["play abc", "go to 北京 now " * 9, {"tokens": ["go", "to"]}]
    before = Predictor(model, device="cpu").predict(given)
    loaded = load(save(model, tmp_path / "model"))
    assert isinstance(loaded.task, SlotsTask)
    assert loaded.task.to_dict() == task.to_dict()
    assert not loaded.told
    assert Predictor(loaded, device="cpu").predict(given) == before
    assert before[0]["words"] == ["play", "abc"]
    assert before[1]["tokens"]["strided"] > 0


def test_heads_beside_the_encoder_are_read_with_care(as_records: Any, make_model: Any, tmp_path: Path) -> None:
    task = SlotsTask.learn(as_records(GIVEN), SlotsSettings())
    folder = save(make_model(task), tmp_path / "model")
    path = folder / "heads.safetensors"
    whole = load_file(path)

    fewer = SlotsTask.learn(as_records([GIVEN[0], GIVEN[1] | {"tags": ["O"] * 4}]), SlotsSettings())
    told = start_from(folder, fewer).told  # other tags, so another head; the same intents, so the same
    assert told == ["left out: heads.slots.linear", "starts from random: heads.slots.linear"]

    save_file({name: weight for name, weight in whole.items() if "intent" not in name}, path)
    with pytest.raises(ModelError, match=r"the weight heads\.intent\.linear\.\w+ and 1 more is missing"):
        load(folder)
    save_file(whole | {"heads.slots.linear.bias": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"heads\.slots\.linear\.bias has shape \(2,\), but"):
        load(folder)
    save_file(whole | {"encoder.pooler.dense.bias": torch.zeros(32)}, path)
    with pytest.raises(ModelError, match=r"heads\.safetensors: the weight encoder\.pooler\.dense\.bias is not one of"):
        load(folder)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"heads\.safetensors"):
        load(folder)
    path.unlink()
    with pytest.raises(ModelError, match=r"the weight heads\.\w+\.linear\.\w+ and 3 more is missing"):
        load(folder)


def test_labels_that_training_did_not_see_count_as_errors(as_records: Any, make_model: Any, trained: Any) -> None:
    train = [{"tokens": [word, "x"], "tags": [f"B-{word}", "O"], "intent": word.upper()} for word in ("a", "b", "c")]
    task = SlotsTask.learn(as_records(train), SlotsSettings())
    predictor = trained(make_model(task), train, steps=30)
    assert predictor.evaluate(train)["frame_accuracy"] == 1.0

    test = [*train, {"tokens": ["a", "x"], "tags": ["B-a", "B-new"], "intent": "A"}, train[0] | {"intent": "NEW"}]
    encoded = task.encode(as_records(test), predictor.model.tokenizer, max_length=64, labelled=True)
    told = "the {} {!r} (first at <records>:{}) was not seen in training, and counts as an error{}"
    tag, new = told.format("tag", "B-new", 4, "; did you mean 'B-c'?"), told.format("intent", "NEW", 5, "")
    assert [one.notes for one in encoded] == [(), (), (), (tag,), (new,)]
    tags, intent = (encoded[3].examples[0].reads["slots"], encoded[4].examples[0].reads["intent"])
    assert tags.labels is not None
    assert tags.labels[1] == UNSEEN
    assert (tags.weight, intent.weight) == (1.0, 0.0)
    batch = pack([one.examples[0] for one in encoded])
    losses = task.losses(predictor.model.network(batch), batch)
    assert all(0.0 < loss < 1.0 for loss in losses.values())  # finite, and not of the labels unseen
    scores = predictor.evaluate(test)
    assert scores["slot_f1"] == pytest.approx(2 * 5 / (5 + 6))
    assert scores["intent_accuracy"] == 0.8
    assert scores["frame_accuracy"] == 0.6


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"intent": None}, ["<records>:1", '"intent" is None; one label was wanted']),
        ({"tags": ["O", "B-artist"]}, ['"tokens" has 3 words, but "tags" has 2']),
        ({"tags": ["O", "I-artist", "O"]}, ["<records>:1", "word 2 has the tag 'I-artist' after 'O'", "BIO forbids"]),
        ({"tags": ["O", "B-artist", "artist"]}, ["the tag 'artist' has no letter before it"]),
        ({"tokens": ["a", "", "b"]}, ['word 2 of "tokens" is empty']),
    ],
)
def test_learn_says_what_is_wrong(change: Any, fragments: list[str], as_records: Any, tokenizer: Any) -> None:
    records = as_records([GIVEN[0] | change, *GIVEN[1:]])
    with pytest.raises(BothwaysError) as caught:  # before the first step: some are found when encoding
        SlotsTask.learn(records, SlotsSettings()).encode(records, tokenizer, max_length=64, labelled=True)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_set_without_slots_or_with_one_intent_is_refused(as_records: Any) -> None:
    plain = [record | {"tags": ["NN", *["VB"] * (len(record["tags"]) - 1)]} for record in GIVEN]
    with pytest.raises(DataError, match="no tag marks a span; B-LABEL, I-LABEL and O are wanted, found 'NN', 'VB'"):
        SlotsTask.learn(as_records(plain), SlotsSettings())
    nothing = [record | {"tags": ["O"] * len(record["tags"])} for record in GIVEN]
    with pytest.raises(DataError, match="every word has the tag 'O'"):
        SlotsTask.learn(as_records(nothing), SlotsSettings())
    with pytest.raises(DataError, match="all 1 records have the label 'Play'; two labels"):
        SlotsTask.learn(as_records(GIVEN[:1]), SlotsSettings())


def test_a_tag_of_no_scheme_in_the_dev_set_is_told_where_it_stands(as_records: Any, tokenizer: Any) -> None:
    task = SlotsTask.learn(as_records(GIVEN), SlotsSettings())
    wrong = GIVEN[0] | {"tags": ["O", "S-artist", "O"]}
    with pytest.raises(DataError, match="<records>:2: word 2: tag 'S-artist' is not of the BIO scheme"):
        task.encode(as_records([GIVEN[0], wrong]), tokenizer, max_length=64, labelled=True)


def test_the_stride_is_a_number_of_tokens() -> None:
    with pytest.raises(ConfigError, match=r"slots\.stride is -1; it must be at least 0"):
        SlotsSettings(stride=-1)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["en/slots/atis", "en/slots/snips", "zh/slots/cais", "zh/slots/smp2019_ecdt"])
def test_real_sets_are_read_with_what_training_did_not_see(name: str, shared: Path, make_model: Any) -> None:
    from bothways.data.records import read_records

    task = SlotsTask.learn(list(read_records(shared / name / "train.jsonl.gz", limit=400)), SlotsSettings())
    assert task.split == ("characters" if name.startswith("zh") else "words")
    test = list(read_records(shared / name / "test.jsonl.gz", limit=60))
    scores = Predictor(make_model(task, positions=128), device="cpu").score(test)
    assert scores["words_lost"] == scores["tokens_dropped"] == 0
    assert 0.0 <= scores["frame_accuracy"] <= 1.0
