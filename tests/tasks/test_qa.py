"""Tests of questions: windows joined again, exact offsets, softmax without padding, thresholds, checks, parity."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import BertForQuestionAnswering

from bothways.batch import pack
from bothways.data.record import IN_MEMORY, Record
from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import load, save
from bothways.tasks.base import Answer, Encoded
from bothways.tasks.qa import EVEN, QaSettings, QaTask
from bothways.tasks.qa_records import nearest_place
from bothways.tasks.qa_spans import find_spans
from bothways.text.tokenizer import Tokenizer
from bothways.train.run import finetune


def question(context: str, answer: str | None, asked: str = "who?") -> dict[str, Any]:
    """A record as SQuAD's readers give it."""
    found = (
        {"text": [], "answer_start": []}
        if answer is None
        else {"text": [answer], "answer_start": [context.index(answer)]}
    )
    return {"question": asked, "context": context, "answers": found}


LONG = "ab cd ef gh ij kl mn op qr st uv wx yz " * 3 + "它们在北京东西南 " * 3 + "电影票 there"
GIVEN = [
    question("she likes a film", "film"),
    question("他们今天去看电影", "看电影", "去吃什么?"),
    question(LONG, "电影票"),
    question(LONG, None),
    question("😀 é ﬁ 北京 ｆｕｌｌ", "北京"),
]


def perfect(encoded: Encoded) -> list[Answer]:
    """What a model without fault would say: 20 at both ends of the answer, or at [CLS]."""
    answers = []
    for example in encoded.examples:
        read = example.reads["answer"]
        assert read.labels is not None
        scores = np.zeros((len(read.rows), 2), dtype=np.float32)
        scores[read.labels[0], [0, 1]] = 20.0
        answers.append(Answer(example, {"answer": scores}))
    return answers


def some_scores(encoded: Encoded, seed: int = 0) -> list[Answer]:
    """Random logits, two decimals so that sums are exact enough to compare."""
    random = np.random.default_rng(seed)
    return [
        Answer(example, {"answer": random.normal(size=(len(example.reads["answer"].rows), 2)).round(2)})
        for example in encoded.examples
    ]


# --------------------------------------------------------------------------------------------- encode and decode


@pytest.mark.parametrize("max_length", [16, 33, 64, 512])
@pytest.mark.parametrize("stride", [3, 8, 128])
def test_perfect_scores_give_the_gold_answers(as_records: Any, tokenizer: Any, max_length: int, stride: int) -> None:
    records = as_records(GIVEN)
    task = QaTask.learn(records, QaSettings(stride=stride))
    encoded = task.encode(records, tokenizer, max_length=max_length, labelled=True)
    predictions = []
    for record, one in zip(records, encoded, strict=True):
        answers = perfect(one)
        for example in one.examples:
            assert example.tokens <= max_length
        if not any(answer.example.reads["answer"].labels.any() for answer in answers):
            assert record is records[3] or one.notes
        predictions.append(task.decode(record, answers))
    assert [one["answer"] for one in predictions] == ["film", "看电影", "电影票", "", "北京"]
    assert [one["answerable"] for one in predictions] == [True, True, True, False, True]
    for given, prediction in zip(GIVEN, predictions, strict=True):
        assert given["context"][prediction["start"] : prediction["end"]] == prediction["answer"]
        assert prediction["score"] > 0.9
        assert json.loads(json.dumps(prediction)) == prediction
    scores = task.metrics(records, predictions)
    assert (scores["em"], scores["f1"], scores["has_answer_f1"], scores["no_answer_f1"]) == (1.0, 1.0, 1.0, 1.0)


def test_windows_repeat_the_question_and_share_the_stride(tokenizer: Any) -> None:
    task = QaTask(QaSettings(stride=3))
    record = Record({"question": "w h o", "context": "a b c d e f g h i j k l m n o"}, IN_MEMORY, 1)
    (encoded,) = task.encode([record], tokenizer, max_length=14, labelled=False)
    texts = [
        " ".join(tokenizer.token(int(number)) for number in example.pieces[0].input_ids) for example in encoded.examples
    ]
    assert texts[0] == "[CLS] w h o [SEP] a b c d e f g h [SEP]"
    assert texts[1] == "[CLS] w h o [SEP] f g h i j k l m [SEP]"
    assert texts[2] == "[CLS] w h o [SEP] k l m n o [SEP]"
    first = encoded.examples[0].reads["answer"]
    assert first.rows.tolist() == [0, 5, 6, 7, 8, 9, 10, 11, 12]
    assert first.groups.tolist() == [9]
    assert [example.pieces[0].origin.window for example in encoded.examples] == [0, 1, 2]
    assert encoded.coverage.told() == {"kept": 18, "strided": 12}
    assert not encoded.notes


def test_a_question_longer_than_half_of_the_model_is_cut_and_told(tokenizer: Any) -> None:
    record = Record({"question": "a " * 30, "context": "b " * 30}, IN_MEMORY, 1)
    (encoded,) = QaTask(QaSettings()).encode([record], tokenizer, max_length=23, labelled=False)
    assert encoded.coverage.dropped == 20
    assert encoded.notes == ("the question is longer than half of what the model reads: cut",)


def test_the_best_spans_are_those_of_a_plain_search(tokenizer: Any) -> None:
    """Every span of every window, one by one, in the plainest way."""
    task = QaTask(QaSettings(stride=5, max_answer=4, top=8), threshold=0.5)
    record = Record({"question": "who?", "context": LONG}, IN_MEMORY, 1)
    (encoded,) = task.encode([record], tokenizer, max_length=32, labelled=False)
    assert len(encoded.examples) > 5
    answers = some_scores(encoded)
    spans: dict[tuple[int, int], float] = {}
    none = math.inf
    for answer in answers:
        logits, rows = answer.scores["answer"], answer.example.reads["answer"].rows
        offsets = answer.example.pieces[0].origin.offsets[rows]
        none = min(none, logits[0].sum())
        for i in range(1, len(rows)):
            for j in range(i, min(i + 4, len(rows))):
                place = int(offsets[i][0]), int(offsets[j][1])
                spans[place] = max(spans.get(place, -math.inf), float(logits[i][0] + logits[j][1]))
    total = sum(math.exp(score) for score in spans.values()) + math.exp(none)
    wanted = sorted(spans.items(), key=lambda item: -item[1])[:8]
    prediction = task.decode(record, answers)
    found = [(one["start"], one["end"]) for one in prediction["candidates"]]
    assert [spans[place] for place in found] == pytest.approx([score for _, score in wanted])
    assert [one["score"] for one in prediction["candidates"]] == pytest.approx(
        [math.exp(score) / total for _, score in wanted]
    )
    best = math.exp(wanted[0][1])
    assert prediction["no_answer_score"] == pytest.approx(math.exp(none) / (math.exp(none) + best))
    never = QaTask(task.settings, threshold=0.0).decode(record, answers)
    assert (never["answer"], never["start"], never["end"], never["answerable"]) == ("", 0, 0, False)
    assert never["score"] == pytest.approx(math.exp(none) / total)


@drawn(context=st.text(min_size=1, max_size=60), extra=st.text("éＡ😀\u200b\u0301한글각北a \u3000", max_size=30))
def test_every_predicted_span_is_text_of_the_context(tokenizer: Any, context: str, extra: str) -> None:
    """Emoji, full-width, combining and zero-width characters, Hangul: whatever is found stands where it is said to."""
    task = QaTask(QaSettings(stride=4, max_answer=6))
    record = Record({"question": "who?", "context": context + extra}, IN_MEMORY, 1)
    try:
        (encoded,) = task.encode([record], tokenizer, max_length=20, labelled=False)
    except DataError as error:
        assert "blank" in str(error)  # noqa: PT017
        return
    prediction = task.decode(record, some_scores(encoded, seed=len(context)))
    places = [(one["start"], one["end"]) for one in prediction["candidates"]]
    assert len(set(places)) == len(places) > 0
    for one in prediction["candidates"]:
        assert 0 <= one["start"] < one["end"] <= len(context + extra)
        assert (context + extra)[one["start"] : one["end"]] == one["answer"]
    assert sum(one["score"] for one in prediction["candidates"]) <= 1 + 1e-9


def test_tokens_of_one_character_are_one_candidate() -> None:
    """Lower-casing decomposes Hangul: a syllable is several tokens, all of which span the same character."""
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ᄒᄀab", "##ᅡ", "##ᆫ", "##ᆨ"])
    record = Record({"question": "a", "context": "한 각 b"}, IN_MEMORY, 1)
    task = QaTask(QaSettings(top=20))
    (encoded,) = task.encode([record], tokenizer, max_length=32, labelled=False)
    assert len(encoded.examples[0].reads["answer"].rows) == 8
    prediction = task.decode(record, some_scores(encoded))
    places = sorted((one["start"], one["end"]) for one in prediction["candidates"])
    assert places == [(0, 1), (0, 3), (0, 5), (2, 3), (2, 5), (4, 5)]


@drawn(context=st.text("éＡ😀\u200b\u0301한각北京ab1. ", min_size=1, max_size=40), data=st.data())
def test_an_answer_anywhere_is_learnt_by_the_nearest_tokens_around_it(tokenizer: Any, context: str, data: Any) -> None:
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    answers = {"text": [context[start:end]], "answer_start": [start]}
    record = Record({"question": "who?", "context": context, "answers": answers}, IN_MEMORY, 1)
    try:
        task = QaTask.learn([record], QaSettings(max_answer=50))
        (encoded,) = task.encode([record], tokenizer, max_length=64, labelled=True)
    except DataError as error:
        assert "blank" in str(error)  # noqa: PT017
        return
    prediction = task.decode(record, perfect(encoded))
    offsets = tokenizer.encode([context])[0].offsets
    inside = [(int(a), int(b)) for a, b in offsets if a < end and b > start]
    if inside:  # else the answer is all control characters, which no token stands for
        assert (prediction["start"], prediction["end"]) == (inside[0][0], inside[-1][1])
        within = inside[0][0] < start or inside[-1][1] > end
        assert any("within a token" in note for note in encoded.notes) == within


def test_what_cannot_be_learnt_or_found_is_counted(tokenizer: Any) -> None:
    context = "a b c d e f g h i j k l m n o p"
    record = Record(question(context, "c d e f g h i j k l m"), IN_MEMORY, 1)
    (encoded,) = QaTask(QaSettings(stride=2, max_answer=5)).encode([record], tokenizer, max_length=16, labelled=True)
    assert [note.partition(":")[0] for note in encoded.notes] == [
        "the answer is longer than --qa.max-answer",
        "no window holds the whole answer",
    ]
    for example in encoded.examples:
        assert example.reads["answer"].labels.tolist() == [[0, 0]]
    moved = {"question": "who?", "context": "b a b", "answers": {"text": ["b"], "answer_start": [3]}}
    task = QaTask.learn([Record(moved, IN_MEMORY, 1)], QaSettings(misplaced="nearest"))
    (encoded,) = task.encode([Record(moved, IN_MEMORY, 1)], tokenizer, max_length=32, labelled=True)
    assert encoded.examples[0].reads["answer"].labels.tolist() == [[3, 3]]
    assert encoded.notes == ("the answer is not at its answer_start: its nearest place is learnt",)


# -------------------------------------------------------------------------------------------- loss, transformers


def test_logits_equal_transformers_and_the_loss_plain_pytorch_on_padded_rows(
    as_records: Any, make_model: Any, padded: Any, tmp_path: Path
) -> None:
    records = as_records(GIVEN)
    task = QaTask.learn(records, QaSettings(stride=8))
    model = make_model(task)
    theirs = BertForQuestionAnswering.from_pretrained(save(model, tmp_path / "model")).eval()
    encoded = task.encode(records, model.tokenizer, max_length=48, labelled=True)
    examples = [example for one in encoded for example in one.examples]
    assert len(examples) > len(records)
    batch = pack(examples)
    scores = model.network.eval()(batch)
    with torch.no_grad():
        answer = theirs(**padded(examples))
    both = torch.stack([answer.start_logits, answer.end_logits], dim=-1)
    rows = [torch.from_numpy(example.reads["answer"].rows) for example in examples]
    wanted = torch.cat([logits[chosen] for logits, chosen in zip(both, rows, strict=True)])
    assert torch.allclose(scores["answer"], wanted, atol=1e-5)

    width = max(len(chosen) for chosen in rows)
    logits = torch.full((len(rows), width, 2), -1e9)
    for number, chosen in enumerate(rows):
        logits[number, : len(chosen)] = both[number, chosen]
    labels = torch.cat([torch.from_numpy(example.reads["answer"].labels) for example in examples])
    assert labels.any(dim=1).sum() >= 4
    plain = (F.cross_entropy(logits[..., 0], labels[:, 0]) + F.cross_entropy(logits[..., 1], labels[:, 1])) / 2
    assert batch.targets["answer"].weight == len(examples)
    assert task.losses(scores, batch)["answer"].item() / len(examples) == pytest.approx(plain.item(), abs=1e-5)


def test_the_loss_has_the_gradient_of_a_softmax(as_records: Any, tokenizer: Any) -> None:
    records = as_records(GIVEN)
    task = QaTask.learn(records, QaSettings(stride=8))
    examples = [x for one in task.encode(records, tokenizer, max_length=48, labelled=True) for x in one.examples]
    batch = pack(examples)
    scores = torch.randn(len(batch.target_index), 2, requires_grad=True)
    task.losses({"answer": scores}, batch)["answer"].backward()
    assert scores.grad is not None
    bounds = batch.targets["answer"].groups.tolist()
    for number, (start, end) in enumerate(pairwise(bounds)):
        wanted = torch.softmax(scores[start:end].detach(), dim=0)
        for side in (0, 1):
            wanted[batch.targets["answer"].labels[number, side], side] -= 1
        assert torch.allclose(scores.grad[start:end], wanted / 2, atol=1e-6)


def test_a_model_that_transformers_saved_is_loaded_with_its_head(make_model: Any, tmp_path: Path) -> None:
    model = make_model(QaTask(QaSettings()))
    theirs = BertForQuestionAnswering.from_pretrained(save(model, tmp_path / "ours"))
    theirs.save_pretrained(tmp_path / "theirs")
    model.tokenizer.save(tmp_path / "theirs")
    given = [(record["question"], record["context"]) for record in GIVEN]
    loaded = Predictor(load(tmp_path / "theirs"), device="cpu")
    for ours, found in zip(Predictor(model, device="cpu").predict(given), loaded.predict(given), strict=True):
        assert (ours["answer"], ours["start"]) == (found["answer"], found["start"])
        assert ours["score"] == pytest.approx(found["score"], abs=1e-6)


# ------------------------------------------------------------------------------------------- threshold, scoring


def predicted(answer: str, no_answer: float) -> dict[str, Any]:
    return {"answer": answer, "no_answer_score": no_answer, "candidates": [{"answer": answer}]}


def test_the_threshold_is_fitted_on_dev_and_saved(as_records: Any, make_model: Any, tmp_path: Path) -> None:
    given = [question("tea film", answer) for answer in ("tea", None, "film", None)]
    records = as_records(given)
    task = QaTask.learn(records, QaSettings())
    assert task.threshold == EVEN
    predictions = [predicted("tea", 0.1), predicted("tea", 0.4), predicted("film", 0.3), predicted("film", 0.8)]
    assert task.metrics(records, predictions)["em"] == 0.75
    task.tune(records, predictions)
    assert task.threshold == 0.3
    scores = task.metrics(records, predictions)
    assert (scores["em"], scores["threshold"], scores["best_f1"]) == (1.0, 0.3, 1.0)
    assert scores["held_out_f1"] == 0.5  # each half is of one kind and misses the other
    loaded = load(save(make_model(task), tmp_path / "model")).task
    assert isinstance(loaded, QaTask)
    assert (loaded.threshold, loaded.settings) == (0.3, task.settings)


def test_where_no_answer_is_always_best_the_threshold_says_so(as_records: Any) -> None:
    records = as_records([question("tea film", answer) for answer in ("tea", None, None)])
    task = QaTask.learn(records, QaSettings())
    predictions = [predicted("film", score) for score in (0.1, 0.2, 0.3)]
    task.tune(records, predictions)
    assert task.threshold == 0.0
    assert task.metrics(records, predictions)["f1"] == pytest.approx(2 / 3)


def test_a_task_that_never_saw_an_unanswerable_question_always_answers(as_records: Any, tokenizer: Any) -> None:
    records = as_records(GIVEN[:1])
    task = QaTask.learn(records, QaSettings())
    assert task.threshold is None
    (encoded,) = task.encode(records, tokenizer, max_length=64, labelled=True)
    scores = [np.full_like(answer.scores["answer"], -9.0) for answer in perfect(encoded)]
    scores[0][0] = 9.0  # [CLS]
    answers = [Answer(encoded.examples[0], {"answer": scores[0]})]
    prediction = task.decode(records[0], answers)
    assert prediction["answerable"]
    assert prediction["no_answer_score"] == pytest.approx(1.0)
    task.tune(records, [prediction])
    assert task.threshold is None


@pytest.mark.parametrize(
    ("style", "given", "answer", "wanted"),
    [
        ("auto", question("the big film", "big film"), "the Big film!", {"em": 1.0, "f1": 1.0}),
        ("squad", question("the big film", "big film"), "film", {"em": 0.0, "f1": 2 / 3}),
        ("auto", question("他们今天去看电影", "看电影"), "看电影。", {"em": 1.0, "f1": 1.0, "drcd_em": 1.0}),
        ("cmrc", question("他们今天去看电影", "看电影"), "电影", {"em": 0.0, "f1": 0.8}),
        ("drcd", question("他们今天去看电影", "看电影"), "影电", {"em": 0.0, "f1": 0.8}),
        ("auto", question("他们今天去看电影", None) | {"all_answers": ["看影"]}, "影看", {"em": 0.0, "f1": 0.5}),
        ("squad2", question("他们今天去看电影", "看电影"), "影电", {"em": 0.0, "f1": 0.8}),
    ],
)
def test_the_style_decides_how_it_is_scored(
    style: Any, given: Any, answer: str, wanted: dict[str, float], as_records: Any
) -> None:
    scores = QaTask(QaSettings(style=style)).metrics(as_records([given]), [predicted(answer, 0.2)])
    for name, value in wanted.items():
        assert scores[name] == pytest.approx(value), name


# ---------------------------------------------------------------------------------------------------- training


def test_it_learns_which_word_answers_the_question(make_model: Any, trained: Any, as_records: Any) -> None:
    signs = "我你他她它们"
    given = [
        question(f"{a} x {b} y {c}", {"x": a, "y": b, "z": None}[asked], asked)
        for a, b, c in [(signs[i], signs[(i + 1) % 6], signs[(i + 2) % 6]) for i in range(6)]
        for asked in "xyz"
    ]
    task = QaTask.learn(as_records(given), QaSettings(style="squad2"))
    predictor = trained(make_model(task), given, steps=80)
    scores = predictor.evaluate(given)
    assert scores["em"] == 1.0
    prediction = predictor.predict([given[0]])[0]
    assert prediction["answer"] == "我"
    assert prediction["tokens"] == {"kept": 6}


def test_a_run_fits_the_threshold_and_tells_what_it_saw(make_model: Any, tmp_path: Path) -> None:
    start = save(make_model(QaTask(QaSettings())), tmp_path / "start")
    given = [question("she likes films", "film"), question("she likes it", None)]
    run = finetune(
        "qa", model=str(start), train=given, dev=given, out=tmp_path / "run", epochs=1, device="cpu", quiet=True
    )
    assert {"em", "f1", "best_f1", "held_out_f1", "threshold"} <= set(run.scores)
    saved = load(run.model).task
    assert isinstance(saved, QaTask)
    assert saved.threshold == run.scores["threshold"] != EVEN
    told = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
    assert '"notes"' not in told


def test_settings_are_checked() -> None:
    for name, value in (("stride", -1), ("max_answer", 0), ("top", 0)):
        with pytest.raises(ConfigError, match=rf"qa\.{name} is {value}; it must be at least"):
            QaSettings(**{name: value})


FINE = question("a b", "b")


@pytest.mark.parametrize(
    ("record", "fragments"),
    [
        ({"context": "a"}, ["<records>:2", "no field 'question'"]),
        ({"question": "a"}, ["no field 'context'"]),
        ({"question": "a", "context": "b"}, ["no field 'answers'"]),
        ({"question": " ", "context": "b", "answers": {}}, ["'question' is blank"]),
        ({"question": "a", "context": "\n", "answers": {}}, ["'context' is blank"]),
        ({"question": "a", "context": 3, "answers": {}}, ["'context' is a whole number"]),
        (FINE | {"answers": "b"}, ["'answers' is a string", "wanted an object or a list"]),
        (FINE | {"answers": {"text": ["b"]}}, ['"answers" is', "as many whole numbers"]),
        (FINE | {"answers": {"text": ["b"], "answer_start": [1, 2]}}, ["as many whole numbers"]),
        (FINE | {"answers": {"text": ["b"], "answer_start": ["2"]}}, ["as many whole numbers"]),
        (FINE | {"answers": [{"text": "b"}]}, ["as many whole numbers"]),
        (FINE | {"answers": ["b"]}, ["as many whole numbers"]),
        (FINE | {"answers": {"text": [" "], "answer_start": [1]}}, ["answer 1 is blank"]),
        (
            FINE | {"answers": [{"text": "b", "answer_start": 2}, {"text": "b", "answer_start": 0}]},
            [
                "answer 2, 'b', is not at answer_start 0: there stands 'a'",
                "nearest place is 2",
                "--qa.misplaced nearest",
            ],
        ),
        (
            FINE | {"answers": {"text": ["b"], "answer_start": [-1]}},
            ["'b', is not at answer_start -1: the context has 3 characters"],
        ),
        (FINE | {"answers": {"text": ["c"], "answer_start": [9]}}, ["it stands nowhere in the context"]),
        (FINE | {"is_impossible": True}, ["is_impossible is true, but there is the answer 'b'"]),
    ],
)
def test_learn_says_what_is_wrong(record: Any, fragments: list[str], as_records: Any) -> None:
    with pytest.raises(DataError) as caught:
        QaTask.learn(as_records([FINE, record]), QaSettings())
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert (caught.value.path, caught.value.line) == (IN_MEMORY, 2)


def test_how_many_records_have_a_mistake_is_told_at_once(as_records: Any) -> None:
    wrong = FINE | {"answers": {"text": ["b"], "answer_start": [0]}}
    with pytest.raises(DataError, match=r"<records>:2: .*\(2 more records have such a mistake\)"):
        QaTask.learn(as_records([FINE, wrong, wrong, FINE, wrong]), QaSettings())
    with pytest.raises(DataError, match="nowhere"):
        QaTask.learn(
            as_records([FINE | {"answers": {"text": ["c"], "answer_start": [0]}}]), QaSettings(misplaced="nearest")
        )


def test_a_context_without_a_token_is_refused(tokenizer: Any, as_records: Any) -> None:
    with pytest.raises(DataError, match=r'<records>:1: "context" holds no token'):
        QaTask(QaSettings()).encode(
            as_records([{"question": "a", "context": "\u200b\u0000"}]), tokenizer, max_length=32, labelled=False
        )


@pytest.mark.parametrize(
    ("text", "start", "wanted"), [("b", 2, 2), ("b", 0, 2), ("b", 5, 6), ("b", 99, 6), ("b", -5, 2), ("x", 0, None)]
)
def test_the_nearest_place(text: str, start: int, wanted: int | None) -> None:
    assert nearest_place("a b a b a", text, start) == wanted


def test_long_contexts_take_no_more_than_one_score_a_token_and_length(tokenizer: Any) -> None:
    task = QaTask(QaSettings())
    (encoded,) = task.encode(
        [Record({"question": "who?", "context": "a b " * 2000}, IN_MEMORY, 1)],
        tokenizer,
        max_length=512,
        labelled=False,
    )
    found = find_spans(some_scores(encoded), max_answer=30, top=3)
    assert len(found.best) == 3
    assert max(end - start for start, end, _ in found.best) <= 60


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "style"),
    [("zh/qa/cmrc2018/test", "drcd_f1"), ("zh/qa/drcd/dev", "drcd_f1"), ("en/qa/squad_v2_half/dev", "held_out_f1")],
)
def test_real_sets_are_read_whole_and_found_again(name: str, style: str, shared: Path, tokenizer: Any) -> None:
    """With perfect scores the only answers lost are those that a window or a token boundary keeps from being learnt."""
    from bothways.data.records import read_records

    records = list(read_records(shared / f"{name}.jsonl.gz", limit=150))
    task = QaTask.learn(records, QaSettings(max_answer=200))
    predictions = [
        task.decode(record, perfect(one))
        for record, one in zip(records, task.encode(records, tokenizer, max_length=384, labelled=True), strict=True)
    ]
    scores = task.metrics(records, predictions)
    assert scores["em"] > 0.99
    assert style in scores
