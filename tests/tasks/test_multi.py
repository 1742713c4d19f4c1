"""Tests of several tasks on one encoder: one pass, each task as if it were alone, saved, mixed in a step, messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertModel

from bothways import config
from bothways.batch import pack
from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import Model, load, save
from bothways.nn.network import Network
from bothways.tasks.base import Answer
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.multi import MultiSettings, MultiTask, Part
from bothways.tasks.qa import QaSettings, QaTask
from bothways.train.run import finetune, finetune_settings, run_finetune

MOODS = [
    {"text": "ab cd ef", "label": "good"},
    {"text": "xy", "label": "bad"},
    {"text": "好 " * 70 + "吃", "label": "good"},
]
QUESTIONS = [
    {"question": "who?", "context": "ab cd", "answers": {"text": ["cd"], "answer_start": [3]}},
    {"question": "who?", "context": "我在北京 " * 20, "answers": {"text": ["北京"], "answer_start": [2]}},
]
TYPES = [{"text": "ab cd ef", "label": "1"}, {"text": "我在北京", "label": "2"}, {"text": "是不是", "label": "3"}]
SETTINGS = MultiSettings(
    {
        "mood": Part("classify", weight=0.5, settings={"long": "mean"}),
        "answer": Part("qa", settings={"stride": 8}),
        "kind": Part("classify"),
    }
)


def named(name: str, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record | {"task": name} for record in given]


EVERY = named("mood", MOODS) + named("answer", QUESTIONS) + named("kind", TYPES)


@pytest.fixture
def task(as_records: Any) -> MultiTask:
    return MultiTask.learn(as_records(EVERY), SETTINGS)


def alone(model: Model, name: str) -> Predictor:
    """The model of one part, with the shared encoder and its own heads."""
    assert isinstance(model.task, MultiTask)
    own = {key.partition("/")[2]: head for key, head in model.network.heads.items() if key.startswith(f"{name}/")}
    network = Network(model.network.encoder, own)  # type: ignore[arg-type]
    return Predictor(Model(model.tokenizer, network, model.task.parts[name]), device="cpu")


def test_each_task_answers_as_if_it_were_alone(task: MultiTask, make_model: Any) -> None:
    model = make_model(task)
    together = Predictor(model, device="cpu").predict(EVERY)
    for name, given in (("mood", MOODS), ("answer", QUESTIONS), ("kind", TYPES)):
        found = [one for one, record in zip(together, EVERY, strict=True) if record["task"] == name]
        for ours, theirs in zip(found, alone(model, name).predict(given), strict=True):
            assert set(ours) == {name, "tokens"}
            assert ours["tokens"] == theirs.pop("tokens")
            assert ours[name].keys() == theirs.keys()
            assert json.dumps(ours[name]).count("{") == json.dumps(theirs).count("{")
            score = max(theirs["scores"].values()) if "scores" in theirs else theirs["score"]
            assert ours[name]["score"] == pytest.approx(score, abs=1e-5)


def test_one_text_is_read_once_for_all_tasks_that_read_it(task: MultiTask, make_model: Any, as_records: Any) -> None:
    model = make_model(task)
    records = as_records([{"text": "ab cd"}, {"text": "好 " * 100}, {"question": "who?", "context": "ab cd"}])
    short, long, question = task.encode(records, model.tokenizer, max_length=64, labelled=False)
    (example,) = short.examples
    assert len(example.pieces) == 1
    assert list(example.reads) == ["mood/label", "kind/label"]
    assert [list(one.reads) for one in long.examples] == [["mood/label"], ["kind/label"]]  # windows, and the first one
    assert [len(one.pieces) for one in long.examples] == [2, 1]
    assert long.coverage.told() == {"kept": 62, "dropped": 38}  # what one of them never sees is told
    assert [list(one.reads) for one in question.examples] == [["answer/answer"]]
    first, second, third = Predictor(model, device="cpu").predict([record.fields for record in records])
    assert set(first) == set(second) == {"mood", "kind", "left_out", "tokens"}
    assert list(first["left_out"]) == ["answer"]
    assert "no field 'question'" in first["left_out"]["answer"]
    assert set(third) == {"answer", "left_out", "tokens"}
    assert set(third["left_out"]) == {"mood", "kind"}


def test_windows_of_each_task_come_back_in_order(task: MultiTask, as_records: Any, tokenizer: Any) -> None:
    """A question's windows, some alike, each with a mark of its own; one of them shared with another task."""
    other = MultiTask({"first": QaTask(QaSettings(stride=8)), "second": QaTask(QaSettings(stride=4))}, {})
    record = as_records([{"question": "who?", "context": "我在北京 " * 20}])
    (encoded,) = other.encode(record, tokenizer, max_length=24, labelled=False)
    (plain,) = other.parts["second"].encode(record, tokenizer, max_length=24, labelled=False)
    assert len(encoded.examples) < 2 * len(plain.examples) + 5
    answers, marks = [], iter(range(100))
    for example in encoded.examples:
        scores = {head: np.full((len(read.rows), 2), next(marks)) for head, read in example.reads.items()}
        answers.append(Answer(example, scores))
    seen: list[Answer] = []
    other.parts["second"].decode = lambda record, answers: seen.extend(answers) or {}  # type: ignore[method-assign]
    other.decode(record[0], answers)
    windows = [answer.example.pieces[0].origin.window for answer in seen]
    assert windows == list(range(len(plain.examples)))
    for one, other_one in zip(seen, plain.examples, strict=True):
        assert np.array_equal(one.example.pieces[0].input_ids, other_one.pieces[0].input_ids)


def test_a_mixed_batch_gives_each_head_the_loss_of_its_own_records(
    task: MultiTask, make_model: Any, as_records: Any
) -> None:
    model = make_model(task)
    records = as_records(EVERY)
    encoded = task.encode(records, model.tokenizer, max_length=64, labelled=True)
    examples = [example for one in encoded for example in one.examples]
    order = np.random.default_rng(0).permutation(len(examples))
    batch = pack([examples[number] for number in order])
    losses = task.losses(model.network.eval()(batch), batch)
    assert list(losses) == ["mood/label", "answer/answer", "kind/label"]
    for name, given in (("mood", MOODS), ("answer", QUESTIONS), ("kind", TYPES)):
        part, predictor = task.parts[name], alone(model, name)
        own = part.encode(as_records(given), model.tokenizer, max_length=64, labelled=True)
        small = pack([example for one in own for example in one.examples])
        (head,) = small.targets
        expected = part.losses(predictor.model.network.eval()(small), small)[head]
        assert losses[f"{name}/{head}"].item() == pytest.approx(expected.item() * task.weights[name], rel=1e-4)
        assert batch.targets[f"{name}/{head}"].weight == small.targets[head].weight
    batch = pack([example for one in encoded[:3] for example in one.examples])  # of one task only
    assert list(task.losses(model.network(batch), batch)) == ["mood/label"]


def test_a_task_counts_as_often_as_it_has_records_unless_told_otherwise(task: MultiTask) -> None:
    assert task.weights == {"mood": 0.5, "answer": len(QUESTIONS) / len(TYPES), "kind": 1.0}
    assert task.weights["answer"] < 1


def test_it_is_saved_whole_and_transformers_reads_the_encoder(
    task: MultiTask, make_model: Any, tmp_path: Path, padded: Any, as_records: Any
) -> None:
    model = make_model(task)
    folder = save(model, tmp_path / "model")
    loaded = load(folder)
    assert isinstance(loaded.task, MultiTask)
    assert loaded.task.to_dict() == task.to_dict()
    assert Predictor(loaded, device="cpu").predict(EVERY) == Predictor(model, device="cpu").predict(EVERY)
    encoded = task.encode(as_records(EVERY[:1]), model.tokenizer, max_length=64, labelled=False)
    theirs = BertModel.from_pretrained(folder).eval()
    batch = pack(encoded[0].examples)
    hidden = theirs(**padded(encoded[0].examples)).last_hidden_state[0, :1]
    assert torch.allclose(model.network.encoder.eval()(batch.tokens, batch.target_index), hidden, atol=1e-5)


def test_a_part_may_have_no_record_on_dev(as_records: Any, tokenizer: Any) -> None:
    teacher = [{"text": "ab cd", "vector": [0.0, 1.0]}, {"text": "我在北京", "vector": [1.0, 0.0]}]
    settings = MultiSettings({"kind": Part("classify"), "vector": Part("embed")})
    task = MultiTask.learn(as_records(named("kind", TYPES) + named("vector", teacher)), settings)
    found = task.encode(as_records(named("kind", TYPES)), tokenizer, max_length=16, labelled=True)
    assert [[*example.reads] for one in found for example in one.examples] == [["kind/label"]] * len(TYPES)


def test_metrics_stand_under_each_name_with_their_mean(task: MultiTask, as_records: Any) -> None:
    records = as_records(EVERY)
    predictions: list[dict[str, Any]] = []
    for record in EVERY:
        if record["task"] == "answer":
            right = record["answers"]["text"][0]
            predictions.append({"answer": {"answer": right, "candidates": [{"answer": right}], "no_answer_score": 0.1}})
        else:
            labels = task.parts[record["task"]].labels  # type: ignore[attr-defined]
            scores = dict.fromkeys(labels, 0.0) | {labels[0]: 1.0}
            predictions.append({record["task"]: {"label": labels[0], "scores": scores}})
    scores = task.metrics(records, predictions)
    assert (scores["mood.accuracy"], scores["answer.f1"]) == (pytest.approx(1 / 3), 1.0)
    assert scores["kind.accuracy"] == pytest.approx(1 / 3)
    assert scores["mean"] == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert set(task.metrics(records[:3], predictions[:3])) > {"mood.accuracy", "mean"}


def test_a_run_from_a_file_learns_all_its_tasks(make_model: Any, tmp_path: Path) -> None:
    start = save(make_model(ClassifyTask(ClassifySettings(), "one", ["a", "b"])), tmp_path / "start")
    signs = "我你他她"
    moods = [{"line": a + b, "label": "good" if a in "我你" else "bad"} for a in signs for b in signs]
    questions = [
        {"question": b, "context": f"{a} 是 {b}", "answers": {"text": [b], "answer_start": [4]}}
        for a in signs
        for b in signs
        if a != b
    ]
    for name, given in (("moods", moods * 7), ("questions", questions * 7), ("dev", moods)):
        lines = "".join(json.dumps(record) + "\n" for record in given)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "run.toml").write_text(
        f"""
        model = "{start}"
        out = "{tmp_path / "run"}"
        epochs = 2
        batch = 8
        device = "cpu"
        quiet = true
        optim.lr = 5e-3
        [tasks.mood]
        task = "classify"
        train = "{tmp_path / "moods.jsonl"}"
        dev = "{tmp_path / "dev.jsonl"}"
        columns.text = "line"
        [tasks.answer]
        task = "qa"
        train = "{tmp_path / "questions.jsonl"}"
        weight = 2.0
        settings.top = 2
        """,
        encoding="utf-8",
    )
    torch.set_num_threads(1)  # threads cost more than they give in so small a network
    wanted = config.load(finetune_settings("multi"), ["multi", "--config", str(tmp_path / "run.toml")])
    run = run_finetune(wanted)
    assert run.scores["mood.accuracy"] == run.scores["mean"] == 1.0
    predictor = Predictor(load(run.model), device="cpu")
    assert [one["mood"]["label"] for one in predictor.predict(["我他", "她你"])] == ["good", "bad"]
    prediction = predictor.predict([("你", "她 是 你")])[0]["answer"]
    assert (prediction["answer"], len(prediction["candidates"])) == ("你", 2)
    again = config.from_toml(finetune_settings("multi"), tmp_path / "run" / "config.toml")
    assert again.multi == wanted.multi
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any({"mood/label_loss", "answer/answer_loss"} <= entry.keys() for entry in log)


def test_from_python_all_records_come_together(make_model: Any, tmp_path: Path) -> None:
    start = save(make_model(ClassifyTask(ClassifySettings(), "one", ["a", "b"])), tmp_path / "start")
    kinds = {"mood": {"task": "classify"}, "answer": {"task": "qa"}}
    given = named("mood", MOODS) + named("answer", QUESTIONS)
    common = {"model": str(start), "tasks": kinds, "epochs": 1, "device": "cpu", "quiet": True}
    run = finetune("multi", train=given, dev=given, out=tmp_path / "run", **common)
    assert {"mood.accuracy", "answer.em", "mean"} <= run.scores.keys()
    with pytest.raises(ConfigError, match=r"tasks\.mood\.train is missing; wanted a path"):
        finetune("multi", out=tmp_path / "other", **common)
    both = common | {"tasks": kinds | {"mood": {"task": "classify", "train": str(tmp_path / "moods.jsonl")}}}
    with pytest.raises(ConfigError, match=r"train is given for all tasks, and tasks\.mood\.train too; give one of"):
        finetune("multi", train=given, out=tmp_path / "other", **both)
    with pytest.raises(ConfigError, match=r"columns are told, but no train of all tasks; say tasks\.NAME\.columns"):
        finetune("multi", out=tmp_path / "other", columns={"text": "line"}, **both)
    file = tmp_path / "all.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    told = finetune("multi", train=file, out=tmp_path / "filed", **common)
    assert str(file) in (told.model / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"task": "tga"}, "there is no task 'tga' to share an encoder; known are .*; did you mean tag?"),
        ({"task": "multi"}, "there is no task 'multi' to share an encoder"),
        ({"task": "pretrain"}, "there is no task 'pretrain' to share an encoder"),
        ({"task": "qa", "weight": 0.0}, "weight is 0.0 for a task of kind qa; it must be above 0"),
        ({"task": "qa", "settings": {"strid": 1}}, "unknown key strid; did you mean stride"),
        ({"task": "qa", "settings": {"stride": "far"}}, "stride is 'far'; wanted a whole number"),
    ],
)
def test_a_part_says_what_is_wrong(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Part(**part)


def test_names_that_mean_something_else_are_refused() -> None:
    with pytest.raises(ConfigError, match="a task can't be called tokens"):
        MultiSettings({"tokens": Part("qa")})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([*EVERY, {"text": "a"}], r'<records>:9: no field "task", which says whose labels these are: one of \'mood\''),
        ([*EVERY, {"text": "a", "task": "moot"}], r"<records>:9: \"task\" is 'moot'; wanted one of .* mean 'mood'\?"),
        (
            named("mood", MOODS) + named("kind", TYPES),
            'no record to train answer on; wanted some with "task": "answer"',
        ),
        ([*EVERY, {"task": "answer", "question": "a"}], "<records>:9: no field 'context'"),
    ],
)
def test_learn_says_what_is_wrong(given: Any, message: str, as_records: Any) -> None:
    with pytest.raises(DataError, match=message):
        MultiTask.learn(as_records(given), SETTINGS)


def test_without_tasks_there_is_nothing_to_learn(as_records: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"multi has no tasks; give them in a file, --config run.toml"):
        MultiTask.learn(as_records(EVERY), MultiSettings())
    with pytest.raises(ConfigError, match="multi has no tasks"):
        finetune("multi", out=tmp_path / "run")


def test_a_record_that_no_task_reads_is_refused(task: MultiTask, make_model: Any) -> None:
    predictor = Predictor(make_model(task), device="cpu")
    with pytest.raises(DataError, match="<records>:2: no field 'text'"):
        predictor.predict([{"text": "a"}, {"words": "a"}])
    with pytest.raises(DataError, match="<records>:1: no field 'context'"):
        predictor.predict([{"question": "a", "task": "answer"}])


def test_a_text_with_labels_of_several_tasks_is_one_example(as_records: Any, make_model: Any) -> None:
    tagged = {"tokens": ["我", "在", "北京"], "tags": ["O", "O", "B-LOC"]}
    both = {"task": ["places", "kinds"], "places": tagged, "kinds": tagged | {"tags": ["r", "p", "n"]}}
    settings = MultiSettings({"places": Part("tag"), "kinds": Part("tag")})
    task = MultiTask.learn(as_records([both]), settings)
    assert task.parts["kinds"].tags.names == ["n", "p", "r"]  # type: ignore[attr-defined]
    model = make_model(task)
    (encoded,) = task.encode(as_records([both]), model.tokenizer, max_length=64, labelled=True)
    (example,) = encoded.examples
    assert set(example.reads) == {"places/tags", "kinds/tags"}
    predictor = Predictor(model, device="cpu")
    together, apart = (
        predictor.evaluate(records) for records in ([both], [both[name] | {"task": name} for name in settings.tasks])
    )
    for scores in (together, apart):
        del scores["seconds"], scores["records"], scores["tokens"]
    assert together == apart


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"task": ["places", "kind"]}, r'<records>:1: "task" is \'kind\'; wanted one of .*; did you mean \'kinds\'\?'),
        ({"task": []}, '"task" is .*; wanted one of'),
        ({"task": ["places"], "tokens": ["a"]}, "no field 'places'"),
        ({"task": ["places"], "places": ["a"]}, "'places' is a list, wanted"),
        ({"task": ["kinds"], "kinds": {"tokens": ["a"]}}, "<records>:1: kinds: no field 'tags'"),
    ],
)
def test_a_record_of_several_tasks_that_can_not_be(as_records: Any, record: dict[str, Any], message: str) -> None:
    tagged = {"tokens": ["a", "b"], "tags": ["X", "Y"]}
    fine = {"task": ["places", "kinds"], "places": tagged, "kinds": tagged}
    with pytest.raises(DataError, match=message):
        MultiTask.learn(as_records([record, fine]), MultiSettings({"places": Part("tag"), "kinds": Part("tag")}))


@pytest.mark.parametrize("split", ["one", "each", "pairs together"])
def test_a_step_is_the_same_however_it_is_split(make_model: Any, as_records: Any, split: str) -> None:
    pairs = [{"text_a": "ab", "text_b": "cd ef"}, {"text_a": "xy", "text_b": "我在"}, {"text_a": "好", "text_b": "吃"}]
    records = as_records(named("mood", MOODS) + named("near", pairs))
    parts = {"mood": Part("classify"), "near": Part("embed", weight=0.5)}
    task = MultiTask.learn(records, MultiSettings(parts))
    model = make_model(task, dropout=0.3)
    model.network.train()
    encoded = task.encode(records, model.tokenizer, max_length=32, labelled=True)
    examples = [example for one in encoded for example in one.examples]
    pieces = {"one": [examples], "each": [[one] for one in examples], "pairs together": [examples[:1], examples[1:]]}
    weights = {"mood/label": 3.0, "near/vector": 3.0}

    def gradients(group: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        model.network.zero_grad()
        losses = task.backward(model.network, [pack(one) for one in group], weights)
        return losses, {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}

    batch = pack(examples)
    plain = task.losses(model.network(batch), batch)
    losses, found = gradients(pieces[split])
    assert losses.keys() == plain.keys() == weights.keys()
    for head, loss in plain.items():
        torch.testing.assert_close(losses[head], loss.detach() / weights[head])
    assert float(losses["near/vector"]) > 0.1, "a pair alone teaches nothing"
    _, wanted = gradients([examples])
    assert max(float(gradient.abs().max()) for gradient in wanted.values()) > 1e-3
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_frozen_names_the_part_that_has_nothing_to_learn(tmp_path: Path, make_model: Any) -> None:
    start = save(make_model(None), tmp_path / "start")
    kinds = {"mood": {"task": "classify"}, "near": {"task": "embed"}}
    given = named("mood", MOODS) + named("near", [{"text_a": "ab", "text_b": "cd"}])
    with pytest.raises(ConfigError, match="to train for 'near': no weights but the encoder's"):
        finetune("multi", train=given, out=tmp_path / "run", model=str(start), tasks=kinds, frozen=True, quiet=True)
