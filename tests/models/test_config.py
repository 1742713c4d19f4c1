"""config.json and bothways.json: what does not fit BERT, the weights or any task is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.models.conftest import LABELS

import bothways
from bothways.errors import ConfigError, ModelError
from bothways.models.model import Model, fresh, load, save, start_from
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.pair import PairSettings, PairTask
from bothways.tasks.pretraining import PretrainTask

Refused = Callable[..., str]


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; None removes a key."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file(file: str, folder: Path, refused: Refused) -> None:
    (folder / file).unlink()
    refused(folder, str(folder), file)


@pytest.mark.parametrize("file", ["config.json", "bothways.json"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not JSON"),
        (b'{"a": ', "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "an object in braces was wanted, found list"),
        (b'"x"', "found str"),
        (b" " * ((8 << 20) + 1), "8,388,609 bytes; more than 8,388,608 is refused"),
    ],
    ids=range(7),
)
def test_json_that_is_none(file: str, content: bytes, text: str, folder: Path, refused: Refused) -> None:
    (folder / file).write_bytes(content)
    refused(folder, file, text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'; Bothways reads BERT models"),
        ({"model_type": ["bert"]}, "model_type is ['bert']"),
        ({"position_embedding_type": "relative_key"}, 'position_embedding_type must be "absolute"'),
        ({"is_decoder": True}, "is_decoder is set"),
        ({"hidden_size": "8"}, "hidden_size is '8'; it must be a whole number"),
        ({"hidden_size": True}, "hidden_size is True; it must be a whole number"),
        ({"hidden_size": 8.0}, "hidden_size is 8.0; it must be a whole number"),
        ({"hidden_size": 7}, "hidden_size 7 does not split into 2 attention heads"),
        ({"hidden_size": -8}, "hidden_size is -8; it must be a whole number from 1"),
        ({"hidden_size": 16}, "has shape (24, 8), but (24, 16) was wanted"),
        ({"hidden_size": 1 << 24}, "has shape (24, 8), but (24, 16777216) was wanted"),
        ({"hidden_size": 1 << 60}, "hidden_size is 1152921504606846976; it must be"),
        ({"vocab_size": 10_000_000}, "has shape (24, 8), but (10000000, 8) was wanted"),
        ({"vocab_size": 19}, "the vocabulary has 20 pieces, but config.json says vocab_size 19"),
        ({"num_hidden_layers": 1}, "does not belong to a BERT of 1 layers; is num_hidden_layers"),
        ({"num_hidden_layers": 3}, "encoder.layer.2.attention.self.query.weight"),
        (
            {"num_hidden_layers": 1_000_000},
            "num_hidden_layers is 1000000 in config.json, but there are only 41 weights",
        ),
        ({"intermediate_size": 13}, "intermediate.dense.weight has shape (12, 8), but (13, 8)"),
        ({"max_position_embeddings": 512}, "position_embeddings.weight has shape (16, 8), but (512, 8)"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish'; known are gelu"),
        ({"hidden_act": ["gelu"]}, "hidden_act is ['gelu']; it must be a name"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob is '0.1'; it must be a number"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob is 2; a probability to drop lies in [0, 1)"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
        ({"num_labels": 10**12}, "num_labels is 1000000000000; it must be a whole number from 1 to 65,536"),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit(changes: dict[str, Any], text: str, folder: Path, refused: Refused) -> None:
    edit(folder / "config.json", **changes)
    refused(folder, str(folder), text)


@pytest.mark.parametrize(
    ("id2label", "text"),
    [
        ({"0": "a", "2": "b", "3": "c"}, "id2label"),
        ({"1": "a", "2": "b", "3": "c"}, "id2label"),
        ({"zero": "a", "1": "b", "2": "c"}, "id2label"),
        ({"0": "a", "1": "a", "2": "c"}, "two labels are called 'a'; give each a name of its own"),
        ({"0": "a", "1": "b"}, "classifier.weight has shape (3, 8), but (2, 8) was wanted"),
    ],
    ids=str,
)
def test_odd_label_names_of_a_foreign_model(
    id2label: dict[str, str], text: str, folder: Path, refused: Refused
) -> None:
    (folder / "bothways.json").unlink()
    edit(folder / "config.json", id2label=id2label)
    refused(folder, str(folder), text)


def test_a_foreign_classifier(folder: Path) -> None:
    (folder / "bothways.json").unlink()
    task = load(folder).task
    assert isinstance(task, ClassifyTask)
    assert (task.labels, task.kind) == (LABELS, "one")
    edit(folder / "config.json", problem_type="multi_label_classification")
    assert load(folder).task.to_dict()["kind"] == "several"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "format 2 is not 1; update Bothways"),
        ({"format": None}, "format None is not 1"),
        ({"task": "classifi"}, "task is 'classifi'"),
        ({"task": "juggle", "juggle": {}}, "there is no task 'juggle'"),
        ({"task": ["classify"]}, "task is ['classify']"),
        ({"classify": None}, "task is 'classify', which the file doesn't describe"),
        ({"classify": {}}, "classify has no '"),
        ({"classify": {"kind": "one", "labels": 5, "settings": {}}}, "can't be restored"),
        ({"classify": {"kind": "one", "labels": LABELS, "settings": {"colour": 1}}}, "can't be restored"),
        ({"classify": {"kind": "one", "labels": ["a", "a", "b"], "settings": {}}}, "two labels are called 'a'"),
        ({"points_lost": 0.1}, "points_lost is 0.1; wanted a number for each precision, or none at all"),
        ({"points_lost": {"bfloat16": "little"}}, "points_lost is {'bfloat16': 'little'}; wanted a number"),
        ({"finetune": "muon"}, "finetune is 'muon'; it must be an object in braces"),
        ({"finetune": {"method": "sgd", "lr": 1e-3}}, "finetune: method is 'sgd'"),
        ({"finetune": {"method": "muon", "lr": 0}}, "finetune: lr is 0"),
    ],
    ids=str,
)
def test_a_task_that_does_not_fit(changes: dict[str, Any], text: str, folder: Path) -> None:
    edit(folder / "bothways.json", **changes)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(folder / "bothways.json") in str(caught.value)
    assert text in str(caught.value)


def test_starting_from_a_class_that_has_no_task_here(classifier: Model, folder: Path, refused: Refused) -> None:
    edit(folder / "config.json", architectures=["BertForNextSentencePrediction"])
    (folder / "bothways.json").unlink()
    refused(folder, "config.json", "BertForNextSentencePrediction", "bothways finetune TASK --model")
    assert start_from(folder, PretrainTask(None)).told == [
        "left out: classifier",
        "starts from random: heads.masked, heads.masked.dense, heads.masked.norm",
    ]


def test_a_model_that_tells_no_two_texts_apart_reads_no_pairs(classifier, tmp_path):
    one = save(
        fresh(replace(classifier.config, type_vocab_size=1), classifier.tokenizer, classifier.task), tmp_path / "one"
    )
    start_from(one, ClassifyTask(ClassifySettings(), "one", ["a", "b"]))
    task = PairTask(PairSettings(), ["a", "b"])
    with pytest.raises(ModelError, match=r"config\.json: type_vocab_size is 1; pair reads two texts"):
        start_from(one, task)
    with pytest.raises(ConfigError, match="can't tell two texts apart"):
        bothways.load(one).embed([("a", "b")], level="pair")
    two = save(fresh(classifier.config, classifier.tokenizer, task), tmp_path / "two")
    config = json.loads((two / "config.json").read_text())
    (two / "config.json").write_text(json.dumps(config | {"type_vocab_size": 1}))
    with pytest.raises(ModelError, match="type_vocab_size is 1; pair reads two texts"):
        load(two)


def test_a_pre_trained_model_with_one_segment_still_fills_masks(classifier, tmp_path):
    config = replace(classifier.config, type_vocab_size=1)
    one = save(fresh(config, classifier.tokenizer, PretrainTask("next")), tmp_path / "one")
    assert isinstance(load(one).task, PretrainTask)
    with pytest.raises(ModelError, match="pretrain reads two texts"):
        start_from(one, PretrainTask("next"))
