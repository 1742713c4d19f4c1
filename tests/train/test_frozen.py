"""Training on fixed vectors: what learns, what stays, and what there is nothing to learn for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.toys import labelled, write_records
from torch import Tensor

import bothways
from bothways.errors import ConfigError
from bothways.models.model import Model, fresh, load, save, start_from
from bothways.nn.dropout import Dropout
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.pretraining import PretrainTask
from bothways.train.frozen import freeze
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
        return bothways.finetune(task, out=tmp_path / out, quiet=True, frozen=True, **(data | settings))

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


def test_tags_read_no_pooler(masked_only, frozen, tmp_path: Path):
    rows = [{"tokens": record["text"].split(), "tags": None} for record in labelled(12, 1)]
    for row in rows:
        row["tags"] = ["B-X" if word in ("great", "awful", "poor") else "O" for word in row["tokens"]]
    data = write_records(tmp_path / "tags.jsonl", rows)
    run = frozen("tag", model=str(masked_only), train=data, dev=data)
    task = load(run.model).task
    assert changed(begun(masked_only, task), run.model) == of("heads.tags.linear")


def test_vectors_alone_have_nothing_to_learn(frozen, tmp_path: Path):
    data = write_records(tmp_path / "pairs.jsonl", [{"text_a": "the film", "text_b": "a day"}] * 4)
    with pytest.raises(ConfigError, match=r"^--frozen leaves nothing to train: embed has no weights but the encoder's"):
        frozen("embed", train=data, dev=data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [None, 0.3])
def test_only_the_head_drops(given: float | None, tiny):
    model: Model = start_from(tiny.model, TASK)
    optim = freeze(model, Optim(dropout=given))
    assert (optim.dropout, optim.attention_dropout) == (None, 0.0)
    rates = {name: part.p for name, part in model.network.named_modules() if isinstance(part, Dropout)}
    assert {rate for name, rate in rates.items() if name.startswith("encoder.")} == {0.0}
    assert rates["heads.label.dropout"] == (0.1 if given is None else given)
