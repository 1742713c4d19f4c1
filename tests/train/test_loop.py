"""The loop: a step is the same however it is split, only what should be trained is, a bad gradient changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bothways
from bothways.data.finetuning import ExampleSource
from bothways.data.loader import StepSize, steps
from bothways.data.record import Record
from bothways.errors import TrainingError
from bothways.models.model import Model, seed_everything, start_from
from bothways.tasks.base import Task
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.train import loop
from bothways.train.finetuning import Best
from bothways.train.frozen import freeze
from bothways.train.loop import Progress, Report, train
from bothways.train.optimizer import Optim, learning_rate, make_optimizer
from bothways.train.ranks import Ranks

CPU = torch.device("cpu")
PLAIN, FAST = ClassifySettings(), Optim(lr=1e-3)


@pytest.fixture
def learn(tiny, records_of) -> Callable[..., tuple[list[Report], dict[str, Tensor]]]:
    """Train a tiny classifier: the reports of its steps, and its weights."""

    def run(
        *,
        count: int = 24,
        micro_tokens: int = 8192,
        take: int = 6,
        settings: ClassifySettings = PLAIN,
        prepare: Callable[[Model], Any] = lambda model: None,
        optim: Optim = FAST,
        after_step: Callable[[Report], bool | None] = lambda report: None,
    ) -> tuple[list[Report], dict[str, Tensor]]:
        records = records_of(count)
        task = ClassifyTask.learn(records, settings)
        seed_everything(3)
        model = start_from(tiny.model, task)
        prepare(model)
        reports: list[Report] = []
        train(
            model.network,
            task,
            batches(task, model, records, StepSize(examples=8, micro_tokens=micro_tokens)),
            make_optimizer(model.network, optim),
            optim,
            steps=take,
            progress=Progress(),
            device=CPU,
            precision="float32",
            ranks=Ranks(),
            after_step=lambda report: reports.append(report) or after_step(report),
        )
        return reports, {name: tensor.clone() for name, tensor in model.network.state_dict().items()}

    return run


def batches(task: Task, model: Model, records: list[Record], size: StepSize) -> Iterator[Any]:
    encoded = task.encode(records, model.tokenizer, max_length=32, labelled=True)
    return steps(ExampleSource([example for one in encoded for example in one.examples], seed=5), size)


@pytest.fixture
def records_of(tiny) -> Callable[[int], list[Record]]:
    from bothways.data.records import read_records

    return lambda count: list(read_records(tiny.train, limit=count))


@pytest.mark.parametrize("micro_tokens", [1, 20, 60])
@pytest.mark.parametrize("weights", [None, "balanced"])
def test_a_split_step_is_the_same_step(micro_tokens: int, weights: Any, learn):
    """Dropout is on: its noise belongs to the record, not to the batch. 21 records leave a short last step."""
    settings = ClassifySettings(class_weights=weights)
    whole, trained = learn(count=21, settings=settings)
    split, others = learn(count=21, settings=settings, micro_tokens=micro_tokens)
    assert [report.losses["label"] for report in split] == pytest.approx([r.losses["label"] for r in whole], rel=1e-5)
    assert [report.norm for report in split] == pytest.approx([report.norm for report in whole], rel=1e-4)
    for name, weight in trained.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-4, atol=2e-6, msg=name)


def test_dropout_is_on_in_training_and_off_when_frozen(learn):
    def without_dropout(model: Model) -> None:
        for module in model.network.modules():
            if hasattr(module, "threshold"):
                module.threshold = 0

    plain, _ = learn(take=1)
    still, _ = learn(take=1, prepare=without_dropout)
    assert plain[0].losses != still[0].losses

    def frozen(model: Model) -> None:
        freeze(model, FAST)
        model.network.head("label").dropout.threshold = 0

    assert learn(take=1, prepare=frozen)[0][0].losses == still[0].losses


def test_frozen_trains_only_the_heads(learn):
    kept: dict[str, Tensor] = {}

    def prepare(model: Model) -> None:
        freeze(model, FAST)
        kept.update({name: tensor.clone() for name, tensor in model.network.state_dict().items()})

    _, trained = learn(prepare=prepare)
    changed = {name for name in trained if not torch.equal(trained[name], kept[name])}
    assert changed == {"heads.label.linear.weight", "heads.label.linear.bias"}


def test_unfrozen_trains_every_weight(learn):
    kept: dict[str, Tensor] = {}
    _, trained = learn(prepare=lambda m: kept.update({k: v.clone() for k, v in m.network.state_dict().items()}))
    assert [name for name in trained if torch.equal(trained[name], kept[name])] == []


def test_class_weights_are_those_of_scikit_learn(tiny, learn, records_of):
    """The loss is sum(weight of its label x loss of the record) / sum(weights), as PyTorch's mean is."""
    records = records_of(7)  # 4 of one label, 3 of the other
    task = ClassifyTask.learn(records, ClassifySettings(class_weights="balanced"))
    assert task.weights == pytest.approx([7 / (2 * 3), 7 / (2 * 4)])
    model = start_from(tiny.model, task)
    batch = next(batches(task, model, records, StepSize(examples=7))).batches[0]
    target = batch.targets["label"]
    assert target.labels is not None
    with torch.no_grad():
        logits = model.network.eval()(batch)["label"]
        ours = task.losses({"label": logits}, batch)["label"] / target.weight
        theirs = torch.nn.functional.cross_entropy(logits, target.labels, weight=torch.tensor(task.weights))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, learn, monkeypatch):
    weights: list[dict[str, Tensor]] = []
    models: list[Model] = []
    losses = ClassifyTask.losses

    def third_is_bad(self: ClassifyTask, scores: dict[str, Tensor], batch: Any) -> dict[str, Tensor]:
        factor = bad if len(weights) == 2 else 1.0
        return {name: loss * factor for name, loss in losses(self, scores, batch).items()}

    def note(report: Report) -> None:
        weights.append({k: v.clone() for k, v in models[0].network.state_dict().items()})

    monkeypatch.setattr(ClassifyTask, "losses", third_is_bad)
    with pytest.raises(TrainingError, match=r"^step 3: the norm of the gradient is nan; try a lower --optim.lr \("):
        learn(prepare=models.append, after_step=note)
    assert len(weights) == 2
    for name, weight in models[0].network.state_dict().items():
        assert torch.equal(weight, weights[-1][name])


def test_the_gradient_is_clipped(learn):
    free, _ = learn(take=1, optim=Optim(lr=1e-3, clip=None))
    assert free[0].norm > 0.1
    clipped: list[float] = []

    limit = free[0].norm / 2
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        clipped.append(float(torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads]))))
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        learn(take=1, optim=Optim(lr=1e-3, clip=limit))
    assert clipped == [pytest.approx(limit, rel=1e-3)]


def test_after_step_ends_it(learn):
    answers = iter([None, False, True])
    assert len(learn(take=6, after_step=lambda report: next(answers))[0]) == 3


# ---------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("linear", [0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.25, 0.5, 0.75, 1.0, 0.853553, 0.5, 0.146447]),
        ("stable", [0.25, 0.5, 0.75, 1.0, 1.0, 2 / 3, 1 / 3]),
    ],
)
def test_learning_rates(schedule: Any, rates: list[float]):
    """Seven steps, three of them warm-up: up to the peak, and down to a rate that is not yet 0."""
    settings = Optim(lr=2e-3, warmup=3 / 7, schedule=schedule, decay=3 / 7)
    assert [learning_rate(settings, step, 7) / 2e-3 for step in range(7)] == pytest.approx(rates, abs=1e-6)


def test_biases_and_norms_are_not_decayed(tiny):
    model = start_from(tiny.model, ClassifyTask(ClassifySettings(), "one", ["a", "b"]))
    decayed, free = make_optimizer(model.network, Optim(weight_decay=0.1)).param_groups
    names = {id(parameter): name for name, parameter in model.network.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert {names[id(p)].rsplit(".", 1)[1] for p in decayed["params"]} == {"weight"}
    assert [names[id(p)] for p in free["params"] if "bias" not in names[id(p)] and "norm" not in names[id(p)]] == []
    assert len(decayed["params"]) + len(free["params"]) == len(names)


# --------------------------------------------------------------------------------- epochs and dev scores


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """The dev scores of one epoch after another, and of the finished model: the last one is a guard."""
    given = iter([*scores, -1.0])
    monkeypatch.setattr("bothways.train.finetuning.Dev.scores", lambda self: {"accuracy": next(given)})


def test_the_best_epoch_is_kept(tiny, tmp_path, monkeypatch):
    """The finished model is that of the second epoch: training two epochs of the same schedule gives it too."""
    scripted(monkeypatch, [0.5, 0.9, 0.9, 0.7])
    settings = {"model": str(tiny.model), "batch": 8, "optim": {"lr": 1e-3, "schedule": "constant", "warmup": 0.0}}
    data = {"train": tiny.train, "dev": tiny.dev, "quiet": True}
    run = bothways.finetune("classify", out=tmp_path / "four", epochs=4, **data, **settings)
    scripted(monkeypatch, [0.5, 0.9])
    short = bothways.finetune("classify", out=tmp_path / "two", epochs=2, **data, **settings)
    name = "model.safetensors"
    assert (run.model / name).read_bytes() == (short.model / name).read_bytes()
    assert (run.model / name).read_bytes() != (tmp_path / "four/checkpoints/step-00000012" / name).read_bytes()


@pytest.mark.parametrize(
    ("patience", "scores", "epochs"),
    [
        (1, [0.5, 0.6, 0.6], 3),
        (2, [0.5, 0.4, 0.6, 0.5, 0.6], 5),
        (None, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 6),
        (1, [math.nan, 0.1, math.nan], 3),
    ],
)
def test_early_stopping(patience: int | None, scores: list[float], epochs: int, tiny, tmp_path, monkeypatch):
    from bothways.train.log import read_log

    scripted(monkeypatch, scores)
    bothways.finetune(
        "classify",
        train=tiny.train,
        dev=tiny.dev,
        out=tmp_path / "run",
        model=str(tiny.model),
        epochs=6,
        batch=24,
        patience=patience,
        quiet=True,
    )
    entries = [entry for entry in read_log(tmp_path / "run" / "log.jsonl") if "step" in entry]
    assert len(entries) == epochs
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_patience_counts_epochs_without_a_better_one():
    assert not Best(since=5).has_waited(None)
    assert not Best(since=1).has_waited(2)
    assert Best(since=2).has_waited(2)


# --------------------------------------------------------------------------------------- labelled examples


def test_the_hash_of_examples_sees_text_labels_and_order(tiny, records_of):
    records = records_of(6)
    task = ClassifyTask.learn(records, ClassifySettings())
    tokenizer = start_from(tiny.model, task).tokenizer

    def hash_of(chosen: list[Record]) -> str:
        encoded = task.encode(chosen, tokenizer, max_length=32, labelled=True)
        return ExampleSource([example for one in encoded for example in one.examples], seed=0).hash()

    other = {"good": "bad", "bad": "good"}
    relabelled = [replace(r, fields={**r.fields, "label": other[r.fields["label"]]}) for r in records[:1]]
    retold = [replace(records[0], fields={**records[0].fields, "text": "the film"})]
    hashes = [hash_of(c + records[1:]) for c in (records[:1], relabelled, retold)] + [hash_of(records[::-1])]
    assert hash_of(records) == hashes[0]
    assert len(set(hashes)) == 4


def test_epochs_are_other_permutations_of_the_same_examples(tiny, records_of):
    records = records_of(24)
    task = ClassifyTask.learn(records, ClassifySettings())
    encoded = task.encode(records, start_from(tiny.model, task).tokenizer, max_length=32, labelled=True)
    examples = [example for one in encoded for example in one.examples]
    source = ExampleSource(examples, seed=1)
    orders, noises = [], set()
    for epoch in range(3):
        made = [item.make() for item in source.items(epoch)]
        orders.append([example.pieces[0].input_ids.tobytes() for example in made])
        noises |= {example.seed for example in made}
    assert len({tuple(order) for order in orders}) == 3
    assert len({tuple(sorted(order)) for order in orders}) == 1
    assert len(noises) == 3 * 24  # another dropout for each example in each epoch
    resumed = [item.make().seed for item in source.items(2, skip=10)]
    assert resumed == [item.make().seed for item in source.items(2)][10:]
    assert np.all([item.tokens == item.make().tokens for item in source.items(0)])


def test_memory_is_given_back_now_and_then(learn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is kept free would grow with every new shape."""
    called: list[None] = []
    monkeypatch.setattr(loop, "give_back_memory", lambda: called.append(None))
    learn(take=2 * loop.GIVE_BACK_EVERY + 1)
    assert len(called) == 2
