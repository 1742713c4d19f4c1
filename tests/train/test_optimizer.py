"""Which weights Muon takes, and that both optimizers step, rest and resume as one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bothways import finetune
from bothways.models.model import load, save, start_from
from bothways.models.reading import Advice
from bothways.nn.dropout import Dropout
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.tasks.pretraining import PretrainTask
from bothways.train.optimizer import Float32Muon, Optim, Together, make_optimizer, set_learning_rate


@pytest.mark.parametrize(
    ("given", "followed"),
    [
        ({}, ("muon", 3e-4)),
        ({"lr": 1e-5}, ("muon", 1e-5)),
        ({"method": "adamw"}, ("adamw", 3e-4)),
        ({"method": "adamw", "lr": 1e-5}, ("adamw", 1e-5)),
    ],
)
def test_a_models_advice_is_followed_where_nothing_was_said(tiny, tmp_path, given, followed):
    assert (Optim().peak, Optim(method="muon").peak) == (5e-5, 5e-5)
    advising = save(replace(load(tiny.model), advice=Advice("muon", 3e-4)), tmp_path / "advising")
    settings = {"model": str(advising), "epochs": 1, "optim": {"warmup": 0.0} | given, "quiet": True}
    run = finetune("classify", train=tiny.train, out=tmp_path / "run", **settings)
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    method, rate = followed
    assert next(row["lr"] for row in rows if row.get("step") == 1) == pytest.approx(rate)
    told = [line for line in rows[0]["model"] if "advises" in line]
    followed = [] if "method" in given else [method]  # what was said is not told as advice
    followed += [] if "lr" in given else [f"a rate of {rate:g}"]
    whole = f"{' at '.join(followed)}, as the model that it begins from advises"
    assert told == ([whole] if followed else [])
    assert load(run.folder).advice == Advice("muon", 3e-4)
    begun = (run.folder / "config.toml").read_text(encoding="utf-8")
    assert f'method = "{method}"' in begun  # what was done, not that it was left open
    assert f"lr = {rate}" in begun
    # Advice that has changed since changes nothing for that run.
    path = advising / "bothways.json"
    path.write_text(path.read_text(encoding="utf-8").replace("muon", "adamw"), encoding="utf-8")
    shutil.rmtree(run.folder / "model")
    resumed = finetune("classify", train=tiny.train, out=tmp_path / "run", resume=True, **settings)
    assert resumed.folder == run.folder


@pytest.mark.parametrize(("writing_lr", "followed"), [(1e-3, "adamw at a rate of 0.001"), (None, "muon at a rate of")])
def test_a_writer_has_advice_of_its_own(tiny, tmp_path, writing_lr, followed):
    advising = save(replace(load(tiny.model), advice=Advice("muon", 3e-4, writing_lr)), tmp_path / "advising")
    data = [{"source": "a film", "target": "a day"}] * 4
    run = finetune("generate", model=str(advising), train=data, epochs=1, out=tmp_path / "run", quiet=True)
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert next(line for line in rows[0]["model"] if "advises" in line).startswith(followed)
    assert load(run.folder).advice == Advice("muon", 3e-4, writing_lr)


def network_of(tiny):
    return start_from(tiny.model, PretrainTask("next")).network


@pytest.mark.parametrize("native", [True, False])
def test_muon_takes_the_layers_matrices_and_adamw_the_rest(tiny, monkeypatch: pytest.MonkeyPatch, native: bool):
    monkeypatch.setattr("bothways.train.optimizer.fast_bfloat16", lambda device: native)
    network = network_of(tiny)
    optimizer = make_optimizer(network, Optim(method="muon"))
    assert isinstance(optimizer, Together)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    taken = {
        type(part).__name__: {names[id(p)] for group in part.param_groups for p in group["params"]}
        for part in optimizer.parts
    }
    muon = "Muon" if native else "Float32Muon"
    assert taken[muon] == {n for n, p in network.named_parameters() if n.startswith("encoder.layers") and p.ndim == 2}
    assert len(taken[muon]) == 2 * 4
    assert taken["AdamW"] == set(names.values()) - taken[muon]


def test_muon_takes_a_decoders_matrices_too(tiny):
    network = start_from(tiny.model, GenerateTask(GenerateSettings(decoder="copy"))).network
    optimizer = make_optimizer(network, Optim(method="muon"))
    assert isinstance(optimizer, Together)
    taken = {id(p) for group in optimizer.parts[1].param_groups for p in group["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in taken}
    wanted = ("encoder.layers.", "decoder.body.layers.", "decoder.cross.")
    assert names == {n for n, p in network.named_parameters() if n.startswith(wanted) and p.ndim == 2}
    assert all(any(name.startswith(part) for name in names) for part in wanted)


@pytest.mark.parametrize("shape", [(24, 24), (48, 24), (24, 48)])
def test_float32_muon_steps_as_pytorchs(shape: tuple[int, int]):
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=draw)
    gradients = [torch.randn(shape, generator=draw) for _ in range(4)]
    moved = []
    for kind in (torch.optim.Muon, Float32Muon):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        assert list(optimizer.state[weight]) == ["momentum_buffer"]
        moved.append(weight.detach() - start)
    assert float((moved[1] - moved[0]).norm() / moved[0].norm()) < 0.02  # what bfloat16 rounds


class Kernels(TorchDispatchMode):
    """How many weights each of AdamW's kernels was given at once, and the other operations' names."""

    def __init__(self) -> None:
        super().__init__()
        self.fused: list[int] = []
        self.others: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket is torch.ops.aten._fused_adamw_:
            self.fused.append(len(args[0]))
        else:
            self.others.add(str(function))
        return function(*args, **(kwargs or {}))


def test_adamw_steps_in_one_kernel(tiny):
    """All weights of a group at once, instead of a dozen passes over each."""
    network = network_of(tiny)
    optimizer = make_optimizer(network, Optim(method="adamw"))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    with Kernels() as kernels:
        optimizer.step()
    assert kernels.fused == [len(group["params"]) for group in optimizer.param_groups]
    assert not any("addcdiv" in name or "lerp" in name for name in kernels.others)


def test_both_step_at_the_rate_that_is_set(tiny):
    network = network_of(tiny)
    optimizer = make_optimizer(network, Optim(method="muon", weight_decay=0.0))
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    set_learning_rate(optimizer, 0.0)
    optimizer.step()
    assert all(torch.equal(parameter, before[name]) for name, parameter in network.named_parameters())
    set_learning_rate(optimizer, 1e-2)
    optimizer.step()
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == set(before)
    # As large as AdamW's steps of about the rate: that is what the two share a rate for.
    matrix = "encoder.layers.0.mlp.up.weight"
    step = (dict(network.named_parameters())[matrix] - before[matrix]).square().mean().sqrt()
    assert 0.1e-2 < step < 0.4e-2


def test_dropout_can_be_turned_off_for_a_run(launch, pretrain_words, tmp_path):
    """The saved config keeps its dropout, for fine-tuning to come."""
    assert launch(*pretrain_words, "--optim.dropout", "0", "--out", tmp_path / "run").code == 0
    saved = json.loads((tmp_path / "run" / "model" / "config.json").read_text(encoding="utf-8"))
    assert saved["hidden_dropout_prob"] == 0.1


def test_set_dropout():
    layer = Dropout(0.5, 8, salt=1).train()
    x, noise = torch.ones(100, 8), torch.arange(100)
    assert (layer(x, noise) == 0).any()
    layer.set(0.0)
    assert torch.equal(layer(x, noise), x)


def test_all_seeds_write_down_what_was_advised(tiny, tmp_path):
    advising = save(replace(load(tiny.model), advice=Advice("muon", 3e-4)), tmp_path / "advising")
    out = tmp_path / "run"
    finetune("classify", train=tiny.train, dev=tiny.dev, out=out, model=str(advising), epochs=1, seeds=2, quiet=True)
    for folder in (out, out / "seed-0", out / "seed-1"):
        begun = (folder / "config.toml").read_text(encoding="utf-8")
        assert 'method = "muon"' in begun
        assert "lr = 0.0003" in begun
