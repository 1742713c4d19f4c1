"""Training on fixed vectors: what learns, what stays, and what there is nothing to learn for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.toys import bothways as bothways_
from tests.toys import labelled, write_records
from torch import Tensor

import bothways
from bothways.data.record import Record
from bothways.errors import ConfigError
from bothways.models.model import Model, fresh, load, save, start_from
from bothways.nn.dropout import Dropout
from bothways.nn.encoder import Encoder
from bothways.nn.layers import Features
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.tasks.masked import MaskedSettings, MaskedTask
from bothways.tasks.multi import MultiTask
from bothways.tasks.pretraining import PretrainTask
from bothways.train import finetuning, training
from bothways.train.frozen import bytes_of_vectors, freeze
from bothways.train.log import read_log
from bothways.train.optimizer import Optim

TASK = ClassifyTask(ClassifySettings(), "one", ["bad", "good"])


@pytest.fixture(scope="session")
def masked_only(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model to start from that has no pooler, as BertForMaskedLM's folders have none."""
    whole = load(tiny.model)
    model = fresh(whole.config, whole.tokenizer, PretrainTask(None), pooler=False)
    return save(model, tmp_path_factory.mktemp("masked") / "model")


@pytest.fixture
def frozen(tiny, tmp_path: Path) -> Callable[..., Any]:
    """A run with --frozen."""

    def run(task: str, *, out: str = "run", **settings: Any) -> Any:
        data = {"model": str(tiny.model), "train": tiny.train, "dev": tiny.dev, "optim": {"lr": 1e-3}}
        return bothways.finetune(task, out=tmp_path / out, **({"frozen": True, "quiet": True} | data | settings))

    return run


def changed(before: dict[str, Tensor], model: Path) -> set[str]:
    """The weights that a run's model has otherwise than it began; the heads' names are all in `before`."""
    after = load(model).network.state_dict()
    assert after.keys() == before.keys()
    return {name for name, weight in after.items() if not torch.equal(weight, before[name])}


def begun(name: str | Path, task: Any = TASK) -> dict[str, Tensor]:
    """What a run of seed 0 starts from."""
    torch.manual_seed(0)
    return {name: weight.clone() for name, weight in start_from(name, task).network.state_dict().items()}


def of(part: str) -> set[str]:
    return {f"{part}.weight", f"{part}.bias"}


def test_a_pooler_that_was_loaded_stays_as_it_is(tiny, frozen):
    run = frozen("classify")
    assert changed(begun(tiny.model), run.model) == of("heads.label.linear")
    told = [line for entry in read_log(run.folder / "log.jsonl") for line in entry.get("model", [])]
    assert [line for line in told if "pooler" in line] == []


def test_a_pooler_that_starts_from_random_is_learnt_with_the_head(masked_only, frozen):
    run = frozen("classify", model=str(masked_only))
    assert changed(begun(masked_only), run.model) == of("heads.label.linear") | of("encoder.pooler.dense")
    told = [line for entry in read_log(run.folder / "log.jsonl") for line in entry.get("model", [])]
    assert "learnt with the heads, though the encoder is frozen: encoder.pooler" in told


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """Words with tags."""
    words = [record["text"].split() for record in labelled(12, 1)]
    tags = [["B-X" if word in ("great", "awful", "poor") else "O" for word in each] for each in words]
    return write_records(tmp_path / "tags.jsonl", [{"tokens": w, "tags": t} for w, t in zip(words, tags, strict=True)])


def test_vectors_of_several_layers_go_past_a_pooler_that_starts_from_random(masked_only):
    model = start_from(masked_only, TASK, features=Features("concat:-2:"))
    freeze(model, Optim())
    assert not any("pooler" in line for line in model.told if "learnt" in line)
    assert not any(weight.requires_grad for weight in model.network.encoder.parameters())


@pytest.mark.parametrize(
    ("decoder", "learnt"), [("copy", "all of the decoder"), ("share", "cross-attention and head, for its layers are")]
)
def test_a_decoder_is_learnt_though_the_encoder_is_frozen(tiny, frozen, tmp_path: Path, decoder: str, learnt: str):
    data = write_records(tmp_path / "pairs.jsonl", [{"source": "the film", "target": "a day"}] * 4)
    task = GenerateTask(GenerateSettings(decoder=decoder))
    run = frozen("generate", train=data, dev=data, generate={"decoder": decoder})
    told = [line for entry in read_log(run.folder / "log.jsonl") for line in entry.get("model", [])]
    assert any(line.startswith(f"learnt though the encoder is frozen: {learnt}") for line in told)
    found = changed(begun(tiny.model, task), run.model)
    assert not any(name.startswith("encoder.") for name in found)
    assert any(name.startswith("decoder.body.") for name in found) == (decoder == "copy")


def test_tags_read_no_pooler(masked_only, tagged: Path, frozen):
    run = frozen("tag", model=str(masked_only), train=tagged, dev=tagged)
    task = load(run.model).task
    assert changed(begun(masked_only, task), run.model) == of("heads.tags.linear")


def test_vectors_alone_have_nothing_to_learn(frozen, tmp_path: Path):
    data = write_records(tmp_path / "pairs.jsonl", [{"text_a": "the film", "text_b": "a day"}] * 4)
    with pytest.raises(ConfigError, match=r"^--frozen leaves nothing to train: embed has no weights but the encoder's"):
        frozen("embed", train=data, dev=data)
    assert not (tmp_path / "run").exists()


def test_a_network_on_vectors_of_several_layers(tiny, tmp_path: Path):
    """By the command line, from training to prediction, and on with it."""
    run = tmp_path / "run"
    words = ["finetune", "classify", "--model", tiny.model, "--train", tiny.train, "--dev", tiny.dev, "--out", run]
    words += ["--frozen", "--frozen-layers", "concat:-2:", "--frozen-hidden", 7, "--epochs", 2, "--optim.lr", 1e-2]
    told = bothways_(*words)
    assert told.code == 0, told.err
    features = Features("concat:-2:", 7)
    learnt = of("heads.label.linear") | of("heads.label.hidden")
    start = {name: weight for name, weight in begun(tiny.model).items() if not name.startswith("heads.")}
    model = load(run)
    assert model.network.features == features
    assert (model.network.width, model.network.head("label").hidden.out_features) == (64, 7)
    after = model.network.state_dict()
    assert {name for name in after if name not in start or not torch.equal(start[name], after[name])} == learnt
    scores = json.loads(bothways_("evaluate", run, "--data", tiny.dev, "--json").out)
    printed = dict(line.split(maxsplit=1) for line in told.out.splitlines())
    assert printed["accuracy"] == f"{scores['accuracy']:.4f}"
    assert json.loads(bothways_("predict", run, "the great film").out)["label"] in ("good", "bad")
    info = json.loads(bothways_("info", run / "model", "--json").out)
    assert (info["architecture"], info["task"], info["parameters"]) == ("BertModel", "classify", model.parameters)
    further = bothways_(*words[:3], run, *words[4:8], "--out", tmp_path / "further", *words[10:], "--frozen-layers=-2")
    assert further.code == 0, further.err
    assert load(tmp_path / "further").network.features == Features("-2", 7)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"frozen": False, "frozen_hidden": 8},
            "frozen_hidden is 8, but the encoder is to be trained too; add --frozen",
        ),
        (
            {"frozen": False, "frozen_layers": "-2"},
            "frozen_layers is -2, but the encoder is to be trained too; add --f",
        ),
        ({"frozen_hidden": 70_000}, "frozen_hidden is 70000; it must be from 1 to 65536, or none"),
        ({"frozen_layers": "9"}, "layers names 9, but the model has 2 layers (0 is the embeddings' output)"),
        ({"frozen_layers": "all"}, "layers is 'all'; wanted one (-1 is the last), sum:-4:, mean:1,6 or concat:-4:"),
    ],
)
def test_features_that_can_not_be(settings: dict[str, Any], told: str, frozen, tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        frozen("classify", **settings)
    assert told in str(caught.value)
    assert not (tmp_path / "run").exists()


# ----------------------------------------------------------------------------------------------- kept vectors


def _losses(run: Any) -> list[float]:
    return [entry["loss"] for entry in read_log(run.folder / "log.jsonl") if "step" in entry]


@pytest.mark.parametrize("task", ["classify", "tag"])
@pytest.mark.parametrize("layers", [None, "concat:-2:"])
def test_kept_vectors_are_those_computed_anew(
    task: str, layers: str | None, tagged: Path, frozen, monkeypatch: pytest.MonkeyPatch, capfd
):
    """The heads' dropout is on: its noise is the same. Once they are kept, no step and no look at dev asks for more."""
    data = {} if task == "classify" else {"train": tagged, "dev": tagged, "tag": {"crf": True}}
    settings = data | {"frozen_layers": layers, "epochs": 3, "batch": 5, "quiet": False, "precision": "float32"}
    asked: list[int] = []
    monkeypatch.setattr(finetuning, "pick_answer_precision", lambda *_: "float32")  # else it is measured at the end
    monkeypatch.setattr(finetuning, "take_steps", lambda *a, **k: (asked.clear(), training.take_steps(*a, **k))[1])
    for name in ("forward", "mixed"):
        plain = getattr(Encoder, name)
        monkeypatch.setattr(Encoder, name, lambda *a, plain=plain: asked.append(1) or plain(*a))
    kept = frozen(task, **settings)
    assert asked == []
    assert "the encoder's vectors are computed once and kept: 0." in capfd.readouterr().err
    monkeypatch.setattr(finetuning, "MOST_BYTES", 100)
    anew = frozen(task, out="anew", **settings)
    assert len(asked) > 9
    assert "the encoder's vectors would take 0.0 GB: they are computed anew in each epoch" in capfd.readouterr().err
    assert _losses(kept) == pytest.approx(_losses(anew), rel=1e-4)
    assert {**kept.scores, "seconds": 0} == pytest.approx({**anew.scores, "seconds": 0})


def test_nothing_is_kept_for_once(frozen, capfd):
    frozen("classify", quiet=False, epochs=1)
    assert "vectors" not in capfd.readouterr().err


def test_minutes_are_also_those_of_what_is_kept(frozen, capfd, monkeypatch):
    """What the vectors took is not there for steps."""
    asked = []
    monkeypatch.setattr(finetuning, "steps_in", lambda minutes, training: asked.append(minutes) or 3)
    frozen("classify", quiet=False, minutes=5)
    assert "the encoder's vectors are computed once and kept" in capfd.readouterr().err
    assert 4 < asked[0] < 5


def test_what_can_not_be_kept(tiny):
    """Other pieces are masked in each epoch."""
    parts = {"mood": TASK, "words": MaskedTask(MaskedSettings())}
    model = start_from(tiny.model, MultiTask(parts, {"mood": 1.0, "words": 1.0}))
    records = [Record(dict(one) | {"task": "words"}, "x", 1) for one in labelled(3, 1)]
    encoded = model.task.encode(records, model.tokenizer, max_length=32, labelled=True)
    assert bytes_of_vectors(model.network, [example for one in encoded for example in one.examples]) is None


@pytest.mark.parametrize("given", [None, 0.3])
def test_only_the_head_drops(given: float | None, tiny):
    model: Model = start_from(tiny.model, TASK)
    optim = freeze(model, Optim(dropout=given))
    assert (optim.dropout, optim.attention_dropout) == (None, 0.0)
    rates = {name: part.p for name, part in model.network.named_modules() if isinstance(part, Dropout)}
    assert {rate for name, rate in rates.items() if name.startswith("encoder.")} == {0.0}
    assert rates["heads.label.dropout"] == (0.1 if given is None else given)
