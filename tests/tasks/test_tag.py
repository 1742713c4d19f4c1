"""Tests of tagging: perfect scores give the gold back, loss and logits as transformers has them, messages, learning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import BertForTokenClassification

from bothways.batch import pack
from bothways.data.record import IN_MEMORY, Record
from bothways.data.records import read_records
from bothways.errors import BothwaysError, ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import load, save, start_from
from bothways.tasks import task_class
from bothways.tasks.base import Answer, Encoded
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.tag import TagSettings, TagTask
from bothways.tasks.tag_sets import PLAIN, TagSet, repaired
from bothways.text.tokenizer import Tokenizer

WORDS = [
    {"tokens": ["Ada", "lives", "in", "New", "York", "."], "tags": ["B-PER", "O", "O", "B-LOC", "I-LOC", "O"]},
    {"tokens": ["Bo", "Li", "is", "here"], "tags": ["B-PER", "B-PER", "O", "O"]},
    {"tokens": ["no"], "tags": ["O"]},
]
CHARACTERS = [
    {"tokens": list("我在北京。"), "tags": ["O", "O", "B-LOC", "I-LOC", "O"]},
    {"tokens": list("李明在南京"), "tags": ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]},
]
MARKED = [
    {
        "text": "Ada lives in New York.",
        "spans": [{"start": 0, "end": 3, "label": "PER"}, {"start": 13, "end": 21, "label": "LOC", "text": "New York"}],
    },
    {"text": "我在北京😀。", "spans": [{"start": 2, "end": 4, "label": "LOC"}]},
    {"text": " no one ", "spans": []},
]
POS = [{"tokens": ["we", "see", "it"], "tags": ["PRON", "VERB", "PRON"]}]
BIOES = [{"tokens": list("我在北京。"), "tags": ["S-PER", "O", "B-LOC", "E-LOC", "O"]}]


def oracle(task: TagTask, encoded: Encoded) -> list[Answer]:
    """What a model says that knows the gold tags."""
    answers = []
    for example in encoded.examples:
        labels = example.reads["tags"].labels
        assert labels is not None
        scores = {"tags": 20.0 * np.eye(len(task.tags.names), dtype=np.float32)[labels]}
        if "crf" in example.reads:
            scores["crf"] = np.zeros((1, len(task.tags.names) + 2, len(task.tags.names)), dtype=np.float32)
        answers.append(Answer(example, scores))
    return answers


@pytest.mark.parametrize(
    "settings", [TagSettings(), TagSettings(decode="greedy"), TagSettings(crf=True), TagSettings(stride=0)]
)
@pytest.mark.parametrize(
    "given_", [WORDS, CHARACTERS, MARKED, POS, BIOES], ids=["words", "characters", "marked", "pos", "bioes"]
)
@pytest.mark.parametrize("max_length", [8, 400])
def test_perfect_scores_give_the_gold_back(
    settings: TagSettings, given_: Any, max_length: int, as_records: Any, tokenizer: Any
) -> None:
    given_ = [*given_, *(_repeated(fields) for fields in given_)]
    records = as_records(given_)
    task = TagTask.learn(records, settings)
    encoded = task.encode(records, tokenizer, max_length=max_length, labelled=True)
    assert any(len(example.pieces) > 1 or len(one.examples) > 1 for one in encoded for example in one.examples) == (
        max_length == 8
    )
    predictions = [task.decode(record, oracle(task, one)) for record, one in zip(records, encoded, strict=True)]
    for fields, prediction in zip(given_, predictions, strict=True):
        if "tags" in fields:
            assert prediction["tags"] == fields["tags"]
        else:
            spans = [{name: span[name] for name in ("label", "start", "end")} for span in prediction["spans"]]
            assert spans == [{name: span[name] for name in ("label", "start", "end")} for span in fields["spans"]]
            assert all(fields["text"][s["start"] : s["end"]] == s["text"] for s in prediction["spans"])
    scores = task.metrics(records, predictions)
    assert scores["f1"] == scores["precision"] == scores["recall"] == scores["token_accuracy"] == 1.0
    for one in encoded:
        assert one.coverage.dropped == 0
        read = sum(len(piece.input_ids) - 2 for example in one.examples for piece in example.pieces)
        assert read == one.coverage.kept + one.coverage.strided


def _repeated(fields: dict[str, Any]) -> dict[str, Any]:
    """A record nine times as long."""
    if "tokens" in fields:
        return {name: value * 9 for name, value in fields.items()}
    text = fields["text"]
    moved = [
        {**span, "start": span["start"] + at * len(text), "end": span["end"] + at * len(text)}
        for at in range(9)
        for span in fields["spans"]
    ]
    return {"text": text * 9, "spans": moved}


def test_what_is_told_of_spans(as_records: Any, tokenizer: Any) -> None:
    both = [
        {**WORDS[0], "text": "Ada lives  in\nNew York ."},
        {**WORDS[0], "text": "quite another text"},
        CHARACTERS[0],
    ]
    found = []
    for fields in both:
        (record,) = as_records([fields])
        task = TagTask.learn([record], TagSettings())
        (encoded,) = task.encode([record], tokenizer, max_length=64, labelled=True)
        found.append(task.decode(record, oracle(task, encoded)))
    assert found[0]["spans"][1] == {"label": "LOC", "text": "New York", "start": 14, "end": 22, "score": 1.0}
    assert found[1]["spans"][1] == {"label": "LOC", "words": ["New", "York"], "first": 3, "last": 4, "score": 1.0}
    assert found[2]["spans"] == [{"label": "LOC", "text": "北京", "start": 2, "end": 4, "score": 1.0}]
    assert "words" not in found[0]


@given(
    text=st.text(
        st.one_of(st.characters(), st.sampled_from("我ab１ .\u200b\u0301👩🏽\u200d")), min_size=1, max_size=30
    ),
    split=st.sampled_from(["words", "characters", "chinese"]),
    seed=st.integers(0, 10**6),
)
def test_offsets_are_those_of_what_is_told(text: str, split: Any, seed: int) -> None:
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abc我"])
    task = TagTask(TagSettings(), TagSet(["B-X", "I-X", "O"], "BIO"), split)
    record = Record({"text": text}, IN_MEMORY, 1)
    if not text.strip():
        with pytest.raises(DataError, match="the text is empty"):
            task.encode([record], tokenizer, max_length=8, labelled=False)
        return
    (encoded,) = task.encode([record], tokenizer, max_length=8, labelled=False)
    random = np.random.default_rng(seed)
    answers = [
        Answer(example, {"tags": random.normal(size=(len(example.reads["tags"].rows), 3)).astype(np.float32)})
        for example in encoded.examples
    ]
    prediction = task.decode(record, answers)
    assert "".join(prediction["words"]) == "".join(text.split())
    assert len(prediction["tags"]) == len(prediction["words"])
    for span in prediction["spans"]:
        assert text[span["start"] : span["end"]] == span["text"] != ""


@pytest.mark.parametrize(
    ("given_", "scheme", "split", "names"),
    [
        (WORDS, "BIO", "words", ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]),
        (CHARACTERS, "BIO", "characters", ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]),
        (MARKED, "BIO", "words", ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]),
        (POS, PLAIN, "words", ["PRON", "VERB"]),
        (
            BIOES,
            "BIOES",
            "characters",
            [f"{letter}-{label}" for letter in "BEI" for label in ("LOC", "PER")] + ["O", "S-LOC", "S-PER"],
        ),
        ([{"tokens": ["我们", "看", "电影"], "tags": ["r", "v", "n"]}], PLAIN, "chinese", ["n", "r", "v"]),
        ([{"tokens": ["a", "bc"], "tags": ["B", "I"]}], "BIO", "words", ["B", "I", "O"]),
        (
            [{"text": "서울에서 살다", "spans": [{"start": 0, "end": 2, "label": "LOC"}]}],
            "BIO",
            "characters",
            ["B-LOC", "I-LOC", "O"],
        ),
    ],
)
def test_what_is_learnt(given_: Any, scheme: str, split: str, names: list[str], as_records: Any) -> None:
    task = TagTask.learn(as_records(given_), TagSettings())
    assert (task.tags.scheme, task.split, task.tags.names) == (scheme, split, names)


def test_white_space_at_the_edge_of_a_span_is_none_of_it(as_records: Any, tokenizer: Any) -> None:
    rows = [
        {"text": "He met Ada", "spans": [{"start": 6, "end": 10, "label": "PER"}]},
        {"text": "Bob ran", "spans": [{"start": 0, "end": 4, "label": "PER", "text": "Bob "}]},
    ]
    records = as_records(rows)
    task = TagTask.learn(records, TagSettings())
    right = [[{"label": "PER", "start": 7, "end": 10}], [{"label": "PER", "start": 0, "end": 3}]]
    assert task.metrics(records, [{"spans": spans} for spans in right])["f1"] == 1.0


def test_spans_inside_words_are_widened_and_told(as_records: Any, tokenizer: Any) -> None:
    records = as_records([{"text": "Londoner", "spans": [{"start": 0, "end": 6, "label": "LOC"}]}, *MARKED])
    task = TagTask.learn(records, TagSettings(split="words"))
    encoded = task.encode(records, tokenizer, max_length=64, labelled=True)
    predictions = [task.decode(record, oracle(task, one)) for record, one in zip(records, encoded, strict=True)]
    told = "a span begins or ends inside a word, and whole words are learnt (--tag.split characters parts finer)"
    assert [one.notes for one in encoded] == [(told,), (), (), ()]
    assert predictions[0]["spans"][0]["text"] == "Londoner"
    assert task.metrics(records, predictions)["recall"] == 0.75  # what is learnt wider is a miss all the same


@pytest.mark.parametrize(
    ("scheme", "tags", "wanted"),
    [
        ("BIO", "O I-X I-X O", "O B-X I-X O"),
        ("BIO", "B-X I-Y", "B-X B-Y"),
        ("BIO", "B-X I-X B-X", "B-X I-X B-X"),
        ("BIOES", "B-X O I-Y", "S-X O S-Y"),
        ("BIOES", "B-X I-X S-X E-X", "B-X E-X S-X S-X"),
        ("BMES", "B M", "B E"),
    ],
)
def test_repair(scheme: str, tags: str, wanted: str) -> None:
    assert repaired(tags.split(), scheme) == wanted.split()


def test_impossible_tags_can_be_repaired(as_records: Any, tokenizer: Any) -> None:
    records = as_records([*WORDS, {"tokens": ["in", "Rome"], "tags": ["O", "I-LOC"]}])
    task = TagTask.learn(records, TagSettings(repair=True))
    (encoded,) = task.encode(records[3:], tokenizer, max_length=64, labelled=True)
    assert encoded.notes == ("tags that BIO forbids were repaired",)
    prediction = task.decode(records[3], oracle(task, encoded))
    assert prediction["tags"] == ["O", "B-LOC"]
    assert task.metrics(records[3:], [prediction])["f1"] == 1.0


def test_loss_is_that_of_plain_pytorch_on_padded_data(
    as_records: Any, make_model: Any, padded: Any, tmp_path: Path
) -> None:
    records = as_records(WORDS)
    for settings in (TagSettings(), TagSettings(label_smoothing=0.1), TagSettings(class_weights="balanced")):
        task = TagTask.learn(records, settings)
        model = make_model(task)
        examples = [one.examples[0] for one in task.encode(records, model.tokenizer, max_length=64, labelled=True)]
        batch = pack(examples)
        mine = task.losses(model.network(batch), batch)["tags"] / batch.targets["tags"].weight
        folder = save(model, tmp_path / f"{settings.label_smoothing}{settings.class_weights}")
        theirs = BertForTokenClassification.from_pretrained(folder).eval()
        inputs = padded(examples)
        labels = torch.full(inputs["input_ids"].shape, -100)
        for row, example in enumerate(examples):
            read = example.reads["tags"]
            labels[row, read.rows] = torch.from_numpy(read.labels)
        logits = theirs(**inputs).logits.flatten(0, 1)
        weight = None if task.weights is None else torch.tensor(task.weights)
        loss = torch.nn.functional.cross_entropy(
            logits, labels.flatten(), weight=weight, label_smoothing=settings.label_smoothing
        )
        torch.testing.assert_close(mine, loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("crf", [False, True])
def test_transformers_reads_the_saved_model_to_the_same_logits(
    crf: bool, as_records: Any, make_model: Any, padded: Any, tmp_path: Path
) -> None:
    records = as_records(WORDS)
    task = TagTask.learn(records, TagSettings(crf=crf))
    model = make_model(task)
    if crf:
        for weight in model.network.head("crf").parameters():
            torch.nn.init.normal_(weight)
    folder = save(model, tmp_path / "model")
    assert [name for name in load_file(folder / "model.safetensors") if "crf" in name] == [
        f"crf.{name}" for name in ("end_transitions", "start_transitions", "transitions") if crf
    ]
    theirs = BertForTokenClassification.from_pretrained(folder).eval()
    assert [theirs.config.id2label[number] for number in range(5)] == task.tags.names
    predictor = Predictor(model, device="cpu")
    examples = [one.examples[0] for one in predictor.encode(records)]
    with torch.inference_mode():
        logits = theirs(**padded(examples)).logits.numpy()
    for answer, row in zip(predictor.engine.answers(examples), logits, strict=True):
        np.testing.assert_allclose(answer.scores["tags"], row[answer.example.reads["tags"].rows], atol=1e-5)
    again = load(folder)
    assert again.told == []
    assert again.task is not None
    assert again.task.to_dict() == task.to_dict()
    given_ = [{"tokens": fields["tokens"]} for fields in WORDS] * 2 + [{"text": "Ada 在 York."}]
    assert Predictor(again, device="cpu").predict(given_) == predictor.predict(given_)
    (folder / "bothways.json").unlink()
    theirs_here = load(folder)
    assert isinstance(theirs_here.task, TagTask)
    assert (theirs_here.task.tags.names, theirs_here.task.tags.scheme) == (task.tags.names, "BIO")
    assert theirs_here.told == (["left out: heads.crf"] if crf else [])


def test_a_tagger_is_a_start_for_other_tags_and_other_tasks(as_records: Any, make_model: Any, tmp_path: Path) -> None:
    folder = save(make_model(TagTask.learn(as_records(WORDS), TagSettings(crf=True))), tmp_path / "model")
    model = start_from(folder, TagTask.learn(as_records(POS), TagSettings()))
    assert model.network.head("tags").linear.weight.shape[0] == 2  # type: ignore[union-attr]
    told = start_from(folder, ClassifyTask(ClassifySettings(), "one", ["a", "b"])).told
    assert any("crf" in line for line in told)


def test_a_crf_scores_the_sentence_as_a_whole_over_its_windows(as_records: Any, make_model: Any) -> None:
    records = as_records([_repeated(WORDS[0])])
    task = TagTask.learn(records, TagSettings(crf=True))
    model = make_model(task)
    for weight in model.network.head("crf").parameters():
        torch.nn.init.normal_(weight)
    (encoded,) = task.encode(records, model.tokenizer, max_length=16, labelled=True)
    (example,) = encoded.examples
    assert len(example.pieces) > 3
    batch = pack([example])
    loss = float(task.losses(model.network(batch), batch)["tags"].detach())
    read = example.reads["tags"]
    assert read.groups.tolist() == [54]
    assert read.weight == 54
    (alone,) = task.encode(records, model.tokenizer, max_length=16, labelled=False)
    answers = Predictor(model, device="cpu").engine.answers(alone.examples)
    assert len(answers) == len(example.pieces)
    scores = np.concatenate([answer.scores["tags"] for answer in answers]).astype(np.float64)
    weights = answers[-1].scores["crf"][0].astype(np.float64)
    assert read.labels is not None
    path = read.labels
    between, start, end = weights[:-2], weights[-2], weights[-1]
    forward = start + scores[0]
    for row in scores[1:]:
        forward = np.logaddexp.reduce(forward[:, None] + between, axis=0) + row
    gold = scores[np.arange(54), path].sum() + between[path[:-1], path[1:]].sum() + start[path[0]] + end[path[-1]]
    assert loss == pytest.approx(np.logaddexp.reduce(forward + end) - gold, rel=1e-4)


def test_what_a_crf_has_learnt_decides_too(as_records: Any, tokenizer: Any) -> None:
    (record,) = as_records([{"tokens": ["a", "b"]}])
    task = TagTask(TagSettings(crf=True), TagSet(["B-X", "I-X", "O"], "BIO"), "words")
    ((example,),) = (one.examples for one in task.encode([record], tokenizer, max_length=9, labelled=False))
    weights = np.zeros((1, 5, 3), dtype=np.float32)
    scores = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 2.0]], dtype=np.float32)
    answer = Answer(example, {"tags": scores, "crf": weights})
    assert task.decode(record, [answer])["tags"] == ["O", "O"]
    weights[0, 0, 1] = 3.0  # I-X after B-X
    found = task.decode(record, [answer])
    assert found["tags"] == ["B-X", "I-X"]
    sums = {(0, 0): 1, (0, 1): 1 + 1 + 3, (0, 2): 3, (2, 0): 2, (2, 2): 4}  # all that BIO allows
    share = np.exp(5) / sum(np.exp(value) for value in sums.values())
    first = share + (np.exp(1) + np.exp(3)) / sum(np.exp(value) for value in sums.values())
    assert found["spans"][0]["score"] == pytest.approx((first + share) / 2, abs=1e-6)


@pytest.mark.parametrize("settings", [TagSettings(), TagSettings(crf=True)])
def test_a_toy_set_is_learnt(settings: TagSettings, as_records: Any, make_model: Any, trained: Any) -> None:
    toy = [*CHARACTERS, {"tokens": list("他在北京看电影"), "tags": ["O", "O", "B-LOC", "I-LOC", "O", "O", "O"]}]
    predictor = trained(make_model(TagTask.learn(as_records(toy), settings)), toy, steps=40, lr=5e-3)
    assert predictor.evaluate(toy)["f1"] == 1.0
    (prediction,) = predictor.predict(["他在北京看电影"])
    assert [(span["text"], span["start"], span["end"]) for span in prediction["spans"]] == [("北京", 2, 4)]
    assert prediction["tokens"] == {"kept": 7}
    if settings.crf:
        assert predictor.model.network.state_dict()["heads.crf.transitions"].abs().max() > 0.01


TAGGED = {"tokens": ["a", "b"], "tags": ["B-X", "O"]}


@pytest.mark.parametrize(
    ("bad", "fragments"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, ['"tokens" has 2 words, but "tags" has 1', "one tag for each word"]),
        ({"tokens": [], "tags": []}, ['"tokens" is an empty list', "leave the record out"]),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, ['word 2 of "tokens" is empty']),
        ({"tokens": ["a"], "tags": [""]}, ["tag 1 is empty", "wanted O"]),
        ({"tokens": ["a"], "tags": "O"}, ["'tags' is a string ('O'), wanted a list of strings"]),
        ({"tokens": ["a"]}, ["no field 'tags'"]),
        (
            {"tokens": ["a", "b"], "tags": ["O", "I-X"]},
            ["word 2 has the tag 'I-X' after 'O', which BIO forbids", "--tag.repair"],
        ),
        ({"tokens": ["a"], "tags": ["I-X"]}, ["word 1 has the tag 'I-X', with which no BIO sequence begins"]),
        ({"tokens": ["a", "b"], "tags": ["B-X", "I-Y"]}, ["word 2 has the tag 'I-Y' after 'B-X'"]),
        ({"tokens": ["a"], "tags": ["PER"]}, ["the tag 'PER' has no letter before it", "'B-X'", "one kind is wanted"]),
        (
            {"tokens": ["a", "b", "c"], "tags": ["B-X", "M-X", "L-X"]},
            ["the tag 'L-X' is of another scheme", "B, M", "BIO, BIOES, BMES, BILOU"],
        ),
        ({"text": "ab", "spans": [{"start": 0, "end": 3, "label": "X"}]}, ["span 1: start is 0 and end is 3", "<= 2"]),
        ({"text": "ab", "spans": [{"start": 1, "end": 1, "label": "X"}]}, ["start is 1 and end is 1"]),
        ({"text": "ab", "spans": [{"start": 1, "label": "X"}]}, ["span 1: no field 'end'"]),
        ({"text": "ab", "spans": ["X"]}, ["span 1 is a string, wanted an object with start, end and label"]),
        ({"text": "ab", "spans": [{"start": 0, "end": 1, "label": ""}]}, ["span 1: the label is empty"]),
        ({"text": "a  b", "spans": [{"start": 1, "end": 2, "label": "X"}]}, ["nothing but white space"]),
        (
            {"text": "ab cd", "spans": [{"start": 0, "end": 2, "label": "X", "text": "cd"}]},
            ["from 0 to 2 stands 'ab', not 'cd'; it stands at 3"],
        ),
        (
            {"text": "ab cd", "spans": [{"start": 0, "end": 4, "label": "X"}, {"start": 3, "end": 5, "label": "X"}]},
            ["'ab c' (0 to 4) and 'cd' (3 to 5) overlap"],
        ),
        ({"text": " ", "spans": []}, ["the text is empty"]),
    ],
)
def test_what_cannot_be_learnt_from_is_told(bad: Any, fragments: list[str], as_records: Any) -> None:
    with pytest.raises(DataError) as error:
        TagTask.learn(as_records([TAGGED, bad]), TagSettings())
    assert str(error.value).startswith("<records>:2: ")
    for fragment in fragments:
        assert fragment in str(error.value)


def test_mistakes_are_counted_before_the_first_step(as_records: Any, tokenizer: Any) -> None:
    task = TagTask.learn(as_records(WORDS), TagSettings())
    bad = [WORDS[0], {"tokens": ["a"], "tags": ["E-LOC"]}, TAGGED, {"tokens": ["a"], "tags": ["I-LOC"]}]
    with pytest.raises(DataError) as error:
        task.encode(as_records(bad), tokenizer, max_length=64, labelled=True)
    assert str(error.value).startswith("<records>:2: word 1: tag 'E-LOC' is not of the BIO scheme; wanted B-LABEL")
    assert str(error.value).endswith("; 1 more of 4 records can't be used either")
    assert (error.value.path, error.value.line) == (IN_MEMORY, 2)


def test_spans_are_nothing_that_plain_tags_can_be_scored_by(as_records: Any, tokenizer: Any) -> None:
    task = TagTask.learn(as_records([{"tokens": ["we", "saw"], "tags": ["PRON", "VERB"]}]), TagSettings())
    bad = [{"text": "we saw", "spans": [{"start": 0, "end": 2, "label": "PRON"}]}]
    with pytest.raises(DataError) as error:
        task.encode(as_records(bad), tokenizer, max_length=64, labelled=True)
    assert str(error.value) == (
        '<records>:1: "spans" mark parts of a text, but the model tags each word (PRON, VERB); '
        'wanted "tokens" and "tags"'
    )


def test_tags_that_training_did_not_see_are_told_and_count_as_errors(as_records: Any, tokenizer: Any) -> None:
    task = TagTask.learn(as_records(WORDS), TagSettings())
    records = as_records([WORDS[0], *[{"tokens": ["Rome", "a"], "tags": ["B-LOK", "O"]}] * 2])
    encoded = task.encode(records, tokenizer, max_length=64, labelled=True)
    told = "the tag 'B-LOK' (first at <records>:2) was not seen in training, and counts as an error; "
    assert [one.notes for one in encoded] == [(), *[(told + "did you mean 'B-LOC'?",)] * 2]
    assert [one.examples[0].reads["tags"].weight for one in encoded] == [6.0, 1.0, 1.0]
    predictions = [{"tags": WORDS[0]["tags"], "spans": []}, *[{"tags": ["B-LOC", "O"], "spans": []}] * 2]
    scores = task.metrics(records, predictions)
    assert (scores["recall"], scores["precision"], scores["token_accuracy"]) == (0.5, 0.5, 0.8)


def test_one_tag_is_nothing_to_learn(as_records: Any) -> None:
    with pytest.raises(DataError, match="every word has the tag 'O'; two tags are needed"):
        TagTask.learn(as_records([{"tokens": ["a"], "tags": ["O"]}]), TagSettings())


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"stride": -1}, "tag.stride is -1"),
        ({"crf": True, "decode": "greedy"}, "tag.decode is greedy"),
        ({"crf": True, "label_smoothing": 0.1}, "leave one of them out"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], fragment: str) -> None:
    with pytest.raises(ConfigError) as error:
        TagSettings(**settings)
    assert fragment in str(error.value)


def test_a_tagger_takes_no_options(as_records: Any, make_model: Any) -> None:
    predictor = Predictor(make_model(TagTask.learn(as_records(WORDS), TagSettings())), device="cpu")
    with pytest.raises(BothwaysError, match="tag takes no options when predicting; found dictionary"):
        predictor.predict(["Ada"], dictionary=["Ada"])


def test_its_name() -> None:
    assert task_class("tag") is TagTask


def _sets(shared: Path, names: Sequence[str]) -> list[Path]:
    return [shared / name / "train.jsonl.gz" for name in names]


@pytest.mark.shared
def test_real_sets_are_read_as_they_are(shared: Path, tokenizer: Any) -> None:
    wanted = {
        "zh/ner/weibo": ("BIO", "characters"),
        "en/ner/uner_ewt": ("BIO", "words"),
        "en/pos/ud_english_ewt": (PLAIN, "words"),
        "zh/pos/pfr_199801": (PLAIN, "chinese"),
    }
    for path, (scheme, split) in zip(_sets(shared, list(wanted)), wanted.values(), strict=True):
        records = list(read_records(path, limit=80))
        task = TagTask.learn(records, TagSettings())
        assert (task.tags.scheme, task.split) == (scheme, split)
        encoded = task.encode(records, tokenizer, max_length=32, labelled=True)
        predictions = [task.decode(record, oracle(task, one)) for record, one in zip(records, encoded, strict=True)]
        assert task.metrics(records, predictions)["f1"] == 1.0
