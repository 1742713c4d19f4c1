"""Heads on fixed vectors of several layers, with a hidden layer: what they compute, and that they come back saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, BertModel

from bothways.batch import pack
from bothways.errors import ConfigError, ModelError
from bothways.infer.predictor import Predictor
from bothways.models.model import count_parameters, load, save, single_head, start_from
from bothways.nn.heads import TokenHead
from bothways.nn.layers import Features
from bothways.tasks.base import Task
from bothways.tasks.choice import ChoiceSettings, ChoiceTask
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.tasks.masked import MaskedSettings, MaskedTask
from bothways.tasks.multi import MultiTask
from bothways.tasks.qa import QaSettings, QaTask
from bothways.tasks.slots import SlotsSettings, SlotsTask
from bothways.tasks.tag import TagSettings, TagTask
from bothways.tasks.tag_sets import TagSet

TAGS = TagSet(["O", "B-X", "I-X"], "BIO")
TEXT = {"text": "Ada saw 北京"}
MOOD = ClassifyTask(ClassifySettings(), "one", ["a", "b"])
TAG = TagTask(TagSettings(crf=True), TAGS, "words")
CASES: dict[str, tuple[Task, dict[str, Any]]] = {
    "classify": (MOOD, TEXT),
    "tag": (TAG, TEXT),
    "slots": (SlotsTask(SlotsSettings(), TAGS, "words", intents=["a", "b"]), TEXT),
    "qa": (QaTask(QaSettings()), {"question": "who", "context": "Ada saw 北京"}),
    "choice": (ChoiceTask(ChoiceSettings()), {"context": "Ada saw", "choices": ["it", "北京"]}),
    "multi": (MultiTask({"mood": MOOD, "tag": TAG}, {"mood": 1.0, "tag": 1.0}), TEXT),
}
FEATURES = [Features("concat:-2:", 6), Features("sum:0,2"), Features("-2", 32), Features(None, 6)]


def _read(model: Any, features: Features) -> Any:
    model.network.read_features(features)
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # biases too
    return model


@pytest.mark.parametrize("features", FEATURES)
def test_what_a_head_computes(features: Features, make_model: Any, as_records: Any) -> None:
    """Rows of the chosen layers, without the pooler unless they are the last one's, GELU between two products."""
    model = _read(make_model(MultiTask({"mood": MOOD, "tag": TAG}, {})), features)
    network = model.network.eval()
    (encoded,) = model.task.encode(as_records([TEXT]), model.tokenizer, max_length=64, labelled=False)
    batch = pack(encoded.examples)
    states = network.encoder.hidden_states(batch.tokens)
    rows = {
        "concat:-2:": torch.cat(states[1:], dim=1),
        "sum:0,2": states[0] + states[2],
        "-2": states[1],
        None: states[2],
    }[features.layers][batch.target_index]
    scores = network(batch)
    for name, pooled in (("mood/label", True), ("tag/tags", False)):
        head = network.head(name)
        assert isinstance(head, TokenHead)
        own = rows[batch.targets[name].rows]
        if pooled and features.layers is None:
            own = network.encoder.pooler(own)
        if features.hidden is not None:
            assert head.hidden is not None
            assert head.hidden.out_features == features.hidden
            own = F.gelu(F.linear(own, head.hidden.weight, head.hidden.bias))
        torch.testing.assert_close(scores[name], F.linear(own, head.linear.weight, head.linear.bias))


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", CASES)
def test_a_saved_model_comes_back(name: str, features: Features, make_model: Any, tmp_path: Path) -> None:
    task, record = CASES[name]
    model = _read(make_model(task), features)
    before = Predictor(model, device="cpu").predict([record])
    folder = save(model, tmp_path / "model")
    loaded = load(folder)
    assert loaded.network.features == features
    assert Predictor(loaded, device="cpu").predict([record]) == before
    assert count_parameters(folder) == loaded.parameters == model.parameters
    assert Predictor(load(save(loaded, tmp_path / "again")), device="cpu").predict([record]) == before


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_in_every_precision_and_stored_compactly(precision: Any, make_model: Any, tmp_path: Path) -> None:
    model = _read(make_model(TAG), FEATURES[0])
    plain = Predictor(model, device="cpu").predict([TEXT])
    assert Predictor(model, device="cpu", precision=precision).predict([TEXT])[0]["words"] == plain[0]["words"]
    compact = load(save(model, tmp_path / "compact", compact=True))
    assert compact.network.features == FEATURES[0]
    assert Predictor(compact, device="cpu").predict([TEXT])[0]["words"] == plain[0]["words"]


def test_transformers_reads_the_encoder(make_model: Any, as_records: Any, tmp_path: Path) -> None:
    model = _read(make_model(TAG), FEATURES[0])
    theirs = AutoModel.from_pretrained(save(model, tmp_path / "model")).eval()
    assert type(theirs) is BertModel
    (encoded,) = TAG.encode(as_records([TEXT]), model.tokenizer, max_length=64, labelled=False)
    batch = pack(encoded.examples)
    found = theirs(batch.tokens.input_ids[None]).last_hidden_state[0]
    torch.testing.assert_close(found, model.network.eval().encoder(batch.tokens), atol=1e-5, rtol=1e-4)


def test_one_head_of_several(make_model: Any, tmp_path: Path) -> None:
    model = _read(make_model(CASES["multi"][0]), FEATURES[0])
    both = Predictor(model, device="cpu").predict([TEXT])[0]
    alone = load(save(single_head(model, "mood"), tmp_path / "mood"))
    assert Predictor(alone, device="cpu").predict([TEXT])[0]["scores"] == both["mood"]["scores"]


def test_analysis_and_vectors_of_such_a_model(make_model: Any) -> None:
    predictor = Predictor(_read(make_model(TAG), FEATURES[0]), device="cpu")
    found = predictor.analyze("Ada saw 北京", vector=True)
    assert [word["text"] for word in found["entities"]] == [
        span["text"] for span in predictor.predict([TEXT])[0]["spans"]
    ]
    assert len(found["vector"]) == 64
    assert predictor.embed(["Ada"]).shape == (1, 32)
    assert predictor.embed(["Ada"], layers="concat:-2:").shape == (1, 64)


def test_a_head_that_learnt_to_read_other_vectors_is_no_start(make_model: Any, tmp_path: Path) -> None:
    """Even where its weights have the shape."""
    folder = save(_read(make_model(MOOD), Features("-2")), tmp_path / "model")
    assert "left out: heads.label.linear" in start_from(folder, MOOD).told
    assert "left out: heads.label.linear" in start_from(folder, MOOD, features=Features("0")).told
    same = start_from(folder, MOOD, features=Features("-2"))
    assert same.told == []
    assert torch.equal(same.network.state_dict()["heads.label.linear.weight"], _weights(folder))


def _weights(folder: Path) -> torch.Tensor:
    return load(folder).network.state_dict()["heads.label.linear.weight"]


@pytest.mark.parametrize(
    "task",
    [
        MultiTask({"mood": MOOD, "words": MaskedTask(MaskedSettings())}, {"mood": 1.0, "words": 1.0}),
        GenerateTask(GenerateSettings()),
    ],
)
def test_heads_that_read_the_last_layer_only(task: Task, make_model: Any) -> None:
    with pytest.raises(ConfigError, match=r"^the head (words/masked|text) reads the last layer only: leave --frozen-"):
        make_model(task).network.read_features(Features(None, 8))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"layers": "concat:-2:", "hiden": 3}, "features: unknown key hiden; did you mean hidden?"),
        ({"hidden": 0}, "features: hidden is 0; it must be from 1 to 65536 units"),
        ({"hidden": "many"}, "features: hidden is 'many'; wanted"),
        ("concat:-2:", "features is 'concat:-2:'; it must be an object in braces"),
        ({"layers": "9"}, "layers names 9, but the model has 2 layers"),
        ({"layers": "concat:-2:", "hidden": 7}, "has shape"),
    ],
)
def test_a_damaged_file_is_told(raw: Any, told: str, make_model: Any, tmp_path: Path) -> None:
    folder = save(_read(make_model(MOOD), FEATURES[0]), tmp_path / "model")
    path = folder / "bothways.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"features": raw}))
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value).startswith(str(folder))
    assert told in str(caught.value)
