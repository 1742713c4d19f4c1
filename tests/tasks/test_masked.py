"""Tests of the masked-LM head on records: alone, and as one of several tasks, kept, saved, started from and filled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

import bothways
from bothways.batch import pack
from bothways.data.finetuning import ExampleSource
from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import load, save, single_head, start_from
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.masked import MaskedSettings, MaskedTask
from bothways.tasks.multi import MultiSettings, MultiTask, Part
from bothways.tasks.pretraining import PretrainTask
from bothways.train.run import finetune, finetune_settings

TEXTS = [
    {"text": "我们明天去北京看电影。" * 4 + "\n" + "今天天气很好。"},
    {"text": "ab cd ef gh. ij kl mn."},
    {"text": "你好吗"},
]
MOODS = [{"text": "ab", "label": "good"}, {"text": "xy", "label": "bad"}]
EVERY = [{"task": "text"} | record for record in TEXTS] + [{"task": "mood"} | record for record in MOODS]


@pytest.fixture
def several(as_records: Any) -> MultiTask:
    return MultiTask.learn(as_records(EVERY), MultiSettings({"text": Part("masked"), "mood": Part("classify")}))


def encoded(task: Any, given: Any, tokenizer: Any, *, max_length: int = 20) -> list[Any]:
    return [one for one in task.encode(given, tokenizer, max_length=max_length, labelled=True)]


def test_every_token_stands_in_one_sequence_and_the_masked_ones_are_asked_for(tokenizer: Any, as_records: Any) -> None:
    task = MaskedTask(MaskedSettings(mask_rate=0.3))
    found = encoded(task, as_records(TEXTS), tokenizer)
    for record, one in zip(TEXTS, found, strict=True):
        whole: list[int] = []
        for example in one.examples:
            ids, read = example.pieces[0].input_ids.copy(), example.reads["masked"]
            assert len(ids) <= 20
            assert read.weight == len(read.rows) == len(read.labels) >= 1
            assert 0 not in read.rows
            assert len(ids) - 1 not in read.rows
            ids[read.rows] = read.labels
            whole += ids[1:-1].tolist()
        assert whole == tokenizer.encode([record["text"]])[0].ids.tolist()
        assert one.coverage.kept == len(whole)
    assert [len(one.examples) for one in found] == [4, 1, 1]


def test_each_epoch_masks_anew_and_the_same_again_after_a_resume(tokenizer: Any, as_records: Any) -> None:
    """Through `merged`, under another name, beside a task of the same text, which must not see the masks."""
    records = as_records([{"task": ["text", "mood"], "text": {"text": "我们明天去北京看电影。"}, "mood": MOODS[0]}])
    records[0].fields["mood"] = {"text": "我们明天去北京看电影。", "label": "good"}
    task = MultiTask({"text": MaskedTask(MaskedSettings()), "mood": _mood()}, {"text": 1.0, "mood": 1.0})
    (one,) = encoded(task, records, tokenizer)
    assert [list(example.reads) for example in one.examples] == [["text/masked"], ["mood/label"]]
    source = ExampleSource(one.examples, seed=3)
    assert source.hash() == ExampleSource(encoded(task, records, tokenizer)[0].examples, seed=3).hash()
    seen = set()
    for epoch in range(8):
        made = {next(iter(item.reads)): item for item in (each.make() for each in source.items(epoch))}
        again = {next(iter(item.reads)): item for item in (each.make() for each in source.items(epoch))}
        ids, read = made["text/masked"].pieces[0].input_ids.copy(), made["text/masked"].reads["text/masked"]
        assert np.array_equal(ids, again["text/masked"].pieces[0].input_ids)
        seen.add(tuple(read.rows.tolist()))
        plain = made["mood/label"].pieces[0].input_ids
        ids[read.rows] = read.labels
        assert np.array_equal(ids, plain)
        assert tokenizer.mask_id not in plain
    assert len(seen) > 3


def test_masks_that_hide_nothing_at_first_are_read_by_no_other_task(tokenizer: Any, as_records: Any) -> None:
    own = {"text": {"text": "你好"}, "mood": {"text": "你好", "label": "good"}}
    task = MultiTask({"mood": _mood(), "text": MaskedTask(MaskedSettings())}, {"text": 1.0, "mood": 1.0})
    found = encoded(task, as_records([{"task": ["text", "mood"], **own} for _ in range(100)]), tokenizer)
    examples = [example for one in found for example in one.examples]
    unmasked = [example for example in examples if "text/masked" in example.reads]
    assert any(tokenizer.mask_id not in example.pieces[0].input_ids for example in unmasked)
    assert [len(example.reads) for example in examples] == [1] * 200


def test_cls_is_asked_in_training_and_not_on_dev(tokenizer: Any, as_records: Any) -> None:
    (one,) = encoded(MaskedTask(MaskedSettings(cls_words=2)), as_records(TEXTS[1:2]), tokenizer)
    (example,) = one.examples
    assert example.reads["masked"].rows.all()
    drawn = example.seeded(5)
    rows, labels = drawn.reads["masked"].rows, drawn.reads["masked"].labels
    assert (rows == 0).tolist() == [True, True] + [False] * (len(rows) - 2)
    text = tokenizer.encode([TEXTS[1]["text"]])[0].ids.tolist()
    assert labels[0] != labels[1]
    assert {*labels[:2].tolist()} <= {*text}
    assert drawn.seeded(6).reads["masked"].rows[1] == 0, "drawn from what was drawn"


def test_scores_are_those_of_the_loss(make_model: Any, as_records: Any) -> None:
    model = make_model(MaskedTask(MaskedSettings()))
    predictor = Predictor(model, device="cpu", max_length=20)
    scores = predictor.evaluate(TEXTS)
    found = encoded(model.task, as_records(TEXTS), model.tokenizer)
    batch = pack([example for one in found for example in one.examples])
    with torch.inference_mode():
        logits = model.network.eval()(batch)
    count = batch.targets["masked"].weight
    assert scores["masked_loss"] == pytest.approx(float(model.task.losses(logits, batch)["masked"]) / count, rel=1e-5)
    labels = batch.targets["masked"].labels
    assert scores["masked_accuracy"] == pytest.approx(float((logits["masked"].argmax(1) == labels).sum()) / count)


def test_one_folder_fills_masks_answers_and_is_a_start(several: MultiTask, make_model: Any, tmp_path: Path) -> None:
    first = save(make_model(PretrainTask("next")), tmp_path / "first")
    model = start_from(first, several)
    assert model.told == [
        "mood: to be told: one label of 2, 'bad', 'good'",
        "left out: heads.next.linear",
        "starts from random: heads.mood/label.linear",
    ]
    texts = ["我[MASK]北京", "[MASK] cd"]
    filled = bothways.load(first, device="cpu").fill_mask(texts)
    for compact in (False, True):
        folder = save(model, tmp_path / f"compact-{compact}", compact=compact)
        predictor = bothways.load(folder, device="cpu")
        assert predictor.can_fill_masks
        found = predictor.fill_mask(texts, top=3)
        assert [len(mask["fillings"]) for masks in found for mask in masks] == [3, 3]
        if not compact:
            assert found == [[mask | {"fillings": mask["fillings"][:3]} for mask in masks] for masks in filled]
        own, other = predictor.predict([texts[0], "ab"])
        assert own["text"] == {"masks": predictor.fill_mask(texts[0])[0]}
        assert other["left_out"] == {"text": "<records>:2: 'ab' has no [MASK] to fill"}
        assert own["mood"].keys() == other["mood"].keys() == {"label", "score", "scores"}
        assert predictor.embed(["ab"]).shape == (1, 32)  # type: ignore[union-attr]
        assert predictor.analyze("ab")["mood"]["label"] == other["mood"]["label"]
        again = start_from(folder, PretrainTask(None), pooler=False)
        assert again.told == ["left out: encoder.pooler.dense, heads.mood/label.linear"]
        assert start_from(folder, _mood()).told[1] == "starts from random: heads.label.linear"
        assert not any("starts" in line for line in start_from(folder, several).told)
    theirs = BertForMaskedLM.from_pretrained(tmp_path / "compact-False").eval()
    ids = torch.tensor([[2, 7, 4, 9, 3]])
    ours = bothways.load(tmp_path / "compact-False", device="cpu").filler().model
    with torch.inference_mode():
        hidden = BertForMaskedLM.from_pretrained(tmp_path / "compact-False").bert.eval()(ids).last_hidden_state[0]
        assert torch.allclose(ours.network.head("masked").logits(hidden), theirs(ids).logits[0], atol=1e-5)


def test_its_head_alone_is_a_folder_too(several: MultiTask, make_model: Any, tmp_path: Path) -> None:
    model = make_model(several)
    folder = save(single_head(model, "text"), tmp_path / "one")
    predictor = bothways.load(folder, device="cpu")
    assert (
        predictor.predict(["我[MASK]北京"])[0]["masks"] == Predictor(model, device="cpu").fill_mask("我[MASK]北京")[0]
    )
    assert not Predictor(single_head(model, "mood"), device="cpu").can_fill_masks


def test_a_run_learns_both(make_model: Any, tmp_path: Path) -> None:
    start = save(make_model(PretrainTask(None)), tmp_path / "start")
    given = [{"task": "text", "text": text} for text in ("我在北京", "你听月水", "他看电影") for _ in range(32)]
    given += [{"task": "mood"} | record for record in MOODS * 16]
    torch.set_num_threads(1)
    run = finetune(
        "multi",
        train=given,
        out=tmp_path / "run",
        model=str(start),
        tasks={
            "text": {"task": "masked", "settings": {"mask_rate": 0.3, "whole_words": 0.0}},
            "mood": {"task": "classify"},
        },
        epochs=15,
        device="cpu",
        quiet=True,
        optim={"lr": 5e-3},
    )
    before = bothways.load(start, device="cpu").fill_mask("我在[MASK]京", top=1)
    after = bothways.load(run.model, device="cpu").fill_mask("我在[MASK]京", top=1)
    assert before[0][0]["fillings"][0]["token"] != "北"
    assert after[0][0]["fillings"][0]["token"] == "北"
    scores = bothways.load(run.model, device="cpu").evaluate(given[::32] + given[-2:])
    assert scores["mood.accuracy"] == 1.0
    assert {"text.masked_accuracy", "text.masked_loss", "mean"} <= scores.keys()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any({"text/masked_loss", "mood/label_loss"} <= entry.keys() for entry in log)
    assert load(run.model).task.parts["text"].settings.mask_rate == 0.3  # type: ignore[union-attr]


def test_what_can_not_be(as_records: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="'one', 'two' are all of kind masked"):
        MultiSettings({"one": Part("masked"), "two": Part("masked")})
    with pytest.raises(ConfigError, match=r"mask_rate is 1\.5; wanted a number between 0 and 1, such as 0\.15"):
        Part("masked", settings={"mask_rate": 1.5})
    with pytest.raises(ConfigError, match="masked is no task to fine-tune for; it is a verb: bothways pretrain"):
        finetune_settings("masked")
    with pytest.raises(DataError, match="<records>:1: the text is empty"):
        encoded(MaskedTask(MaskedSettings()), as_records([{"text": " \n "}]), tokenizer)


def _mood() -> ClassifyTask:
    return ClassifyTask(ClassifySettings(), "one", ["bad", "good"])
