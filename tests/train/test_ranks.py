"""Several ranks under torchrun: the same steps as one, one writer, and one line when one of them fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

LIMIT = 240  # seconds after which a run counts as hanging


def torchrun(*argv: str | Path, ranks: int = 2, code: str = "-m bothways") -> subprocess.CompletedProcess[str]:
    """The command line under torchrun, on the CPU."""
    source = str(Path(__file__).resolve().parents[2] / "src")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    words += [*code.split(), *map(str, argv)]
    env = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            out, err = started.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            started.terminate()  # torchrun ends its ranks with it
            out, err = started.communicate(timeout=60)
            pytest.fail(f"still running after {LIMIT} s:\n{err}")
    return subprocess.CompletedProcess(words, started.returncode, out, err)


def steps_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if "step" in entry]


def errors_in(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "bothways: error: " in line]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["finetune", "pretrain", "embed"])
def test_two_ranks_take_the_steps_of_one(verb: str, launch, request, tmp_path: Path):
    words = request.getfixturevalue(f"{verb}_words")
    alone = launch(*words, "--out", tmp_path / "one")
    assert alone.code == 0, alone.err
    ended = torchrun(*words, "--out", tmp_path / "two")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(f"{tmp_path / 'two' / 'model'}") == 1  # one rank tells
    ones, twos = steps_of(tmp_path / "one"), steps_of(tmp_path / "two")
    assert [step["step"] for step in twos] == [step["step"] for step in ones]
    for one, two in zip(ones, twos, strict=True):
        assert two["tokens"] == one["tokens"]
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    name = "checkpoints/step-{:08d}/model.safetensors".format(ones[-1]["step"])
    weights = load_file(tmp_path / "one" / name)
    for key, weight in load_file(tmp_path / "two" / name).items():
        torch.testing.assert_close(weight, weights[key], rtol=1e-3, atol=2e-5, msg=key)
    assert (tmp_path / "two" / "loss.png").is_file()


@pytest.mark.slow
def test_bad_data_end_all_ranks_with_one_line(tiny, finetune_words, tmp_path: Path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(tiny.train.read_text(encoding="utf-8") + '{"text": "no label"}\n', encoding="utf-8")
    words = [str(bad) if word == str(tiny.train) else word for word in finetune_words]
    ended = torchrun(*words, "--out", tmp_path / "run")
    assert ended.returncode != 0
    (error,) = errors_in(ended.stderr)
    assert f"{bad}:25: no field 'label'" in error
    assert not (tmp_path / "run").exists()


FAILS = """
import os, sys
from bothways.cli.main import main
from bothways.errors import DataError
import bothways.train.training as training
steps = training.steps
def broken(*args, **kwargs):
    for number, step in enumerate(steps(*args, **kwargs)):
        if number == 2 and os.environ["RANK"] == "1":
            raise DataError("rank 1 cannot read its part", path="part.jsonl", line=3)
        yield step
training.steps = broken
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_one_rank_that_fails_ends_the_others(finetune_words, tmp_path: Path):
    """The first waits for the second's gradients then; it must neither hang nor tell a failure of its own."""
    (tmp_path / "fails.py").write_text(FAILS, encoding="utf-8")
    ended = torchrun(*finetune_words, "--out", tmp_path / "run", code=str(tmp_path / "fails.py"))
    assert ended.returncode != 0
    (error,) = errors_in(ended.stderr)
    assert error.endswith("part.jsonl:3: rank 1 cannot read its part")
    assert "mistake in bothways" not in ended.stderr
    assert len(steps_of(tmp_path / "run")) == 2
