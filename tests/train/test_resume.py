"""A run that was stopped or killed, wherever that was, ends as an undisturbed one: the same bits."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
LOOP, CHECKPOINT = "bothways.train.loop", "bothways.train.checkpoint"

# Where a run is ended: at the n-th call of a function, by a signal.
STOPS = {
    "SIGTERM in an epoch": (LOOP, "learning_rate", 4, TERM),
    "SIGINT in an epoch": (LOOP, "learning_rate", 8, INT),
    "SIGKILL in a step": (LOOP, "clip_grad_norm_", 9, KILL),
    "SIGKILL before the first checkpoint": (LOOP, "clip_grad_norm_", 1, KILL),
    "SIGKILL before the weights are written": (CHECKPOINT, "write_tensors", 7, KILL),
    "SIGKILL before the moments are written": (CHECKPOINT, "write_tensors", 8, KILL),
    "SIGKILL before the manifest": (CHECKPOINT, "file_hash", 12, KILL),
    "SIGKILL before the rename": (CHECKPOINT, "sync", 27, KILL),
    "SIGKILL while the old ones are removed": (CHECKPOINT, "saved_checkpoints", 5, KILL),
    "SIGKILL before the log's line": ("bothways.train.log", "RunLog.write", 8, KILL),
    "SIGKILL while the model is saved": ("bothways.models.model", "_write", 1, KILL),
    "SIGKILL before the picture": ("bothways.train.folder", "draw_losses", 1, KILL),
}


@pytest.fixture(scope="session")
def undisturbed(launch, tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], Path]:
    """The folder of the same command run through, once a command."""
    done: dict[tuple[str, ...], Path] = {}

    def run(words: list[str]) -> Path:
        if tuple(words) not in done:
            done[tuple(words)] = out = tmp_path_factory.mktemp("undisturbed") / "run"
            ended = launch(*words, "--out", out)
            assert ended.code == 0, ended.err
        return done[tuple(words)]

    return run


def steps_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if "step" in entry]


def weights_of(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def assert_same(run: Path, other: Path) -> None:
    """Every step's line (losses, norms, rates, dev scores) and the finished model are the same, bit for bit."""
    assert steps_of(run) == steps_of(other)
    assert weights_of(run) == weights_of(other)
    left = [path.name for path in [*run.rglob("*"), *run.rglob(".*")] if ".part" in path.name or "tmp" in path.name]
    assert left == []


# Both verbs take their steps in the same function: the points inside a checkpoint are tried on one of them.
OF_PRETRAINING = [name for name in STOPS if "in a" in name or "before the first" in name or "rename" in name]


@pytest.mark.parametrize(
    ("verb", "stop"), [("finetune", stop) for stop in STOPS] + [("pretrain", stop) for stop in OF_PRETRAINING]
)
def test_resumed_is_undisturbed(stop: str, verb: str, launch, undisturbed, request, tmp_path: Path):
    words = request.getfixturevalue(f"{verb}_words")
    out, at = tmp_path / "run", STOPS[stop]
    ended = launch(*words, "--out", out, at=at)
    if at[-1] == KILL:
        assert ended.code == -KILL
    else:
        assert ended.code == 130
        assert ended.err.splitlines()[-1].startswith("bothways: error: stopped after step ")
        assert ended.err.splitlines()[-1].endswith("; go on with --resume")
        assert len(steps_of(out)) < len(steps_of(undisturbed(words)))
    again = launch(*words, "--out", out, "--resume")
    assert again.code == 0, again.err
    assert_same(out, undisturbed(words))


@pytest.mark.parametrize("verb", ["finetune", "pretrain"])
def test_resumed_is_undisturbed_in_bfloat16(verb: str, launch, undisturbed, request, tmp_path: Path):
    words = [*request.getfixturevalue(f"{verb}_words")[:-1], "bfloat16"]
    out = tmp_path / "run"
    assert launch(*words, "--out", out, at=(LOOP, "clip_grad_norm_", 8, KILL)).code == -KILL
    assert launch(*words, "--out", out, "--resume").code == 0
    assert_same(out, undisturbed(words))


def test_resumed_on_kept_vectors_is_undisturbed(launch, undisturbed, finetune_words, tmp_path: Path):
    words = [*finetune_words, "--frozen", "--frozen-layers", "concat:-2:", "--frozen-hidden", "6"]
    out = tmp_path / "run"
    assert launch(*words, "--out", out, at=(LOOP, "clip_grad_norm_", 9, KILL)).code == -KILL
    again = launch(*words, "--out", out, "--resume")
    assert again.code == 0
    assert "the encoder's vectors are computed once and kept: 0." in again.err
    assert_same(out, undisturbed(words))
    heads = "model/heads.safetensors"
    assert (out / heads).read_bytes() == (undisturbed(words) / heads).read_bytes()


@pytest.mark.parametrize("step", [2, 5], ids=["first epoch", "second epoch"])
def test_a_writer_that_was_stopped_is_undisturbed(step: int, launch, undisturbed, generate_words, tmp_path: Path):
    """Its decoder's and its cross-attention's dropout, moments and best weights too."""
    out = tmp_path / "run"
    assert launch(*generate_words, "--out", out, at=(LOOP, "clip_grad_norm_", step, KILL)).code == -KILL
    again = launch(*generate_words, "--out", out, "--resume")
    assert again.code == 0, again.err
    assert f"resumed at step {step - 1}" in again.err
    assert_same(out, undisturbed(generate_words))


def test_resumed_with_muon_is_undisturbed(launch, undisturbed, pretrain_words, tmp_path: Path):
    words = [*pretrain_words, "--optim.method", "muon", "--optim.dropout", "0"]
    out = tmp_path / "run"
    assert launch(*words, "--out", out, at=(LOOP, "clip_grad_norm_", 9, KILL)).code == -KILL
    assert launch(*words, "--out", out, "--resume").code == 0
    assert_same(out, undisturbed(words))


def test_a_run_begun_when_dropout_was_none_by_default_is_not_changed_in_silence(
    launch, undisturbed, pretrain_words, tmp_path: Path
):
    """Its config.toml says nothing of dropout, which meant none, and would mean 0 today."""
    out, words = tmp_path / "run", pretrain_words
    assert launch(*words, "--out", out, at=(LOOP, "clip_grad_norm_", 9, KILL)).code == -KILL
    config = out / "config.toml"
    said = config.read_text(encoding="utf-8")
    assert said.count('dropout = "none"\n') == 1
    config.write_text(said.replace('dropout = "none"\n', ""), encoding="utf-8")
    ended = launch("pretrain", "--config", config, "--out", out, "--resume")
    assert ended.code == 2
    assert ended.err.startswith("bothways: error: --resume: optim.dropout is 0.0, but the run in ")
    assert ended.err.endswith(f"leave it as it was (bothways … --config {config} --optim.dropout none --resume)\n")
    assert launch("pretrain", "--config", config, "--optim.dropout", "none", "--out", out, "--resume").code == 0
    assert weights_of(out) == weights_of(undisturbed(words))


def test_killed_again_and_again(launch, undisturbed, finetune_words, tmp_path: Path):
    out = tmp_path / "run"
    launch(*finetune_words, "--out", out, at=(CHECKPOINT, "sync", 5, KILL))
    for number in (1, 8, 30, 9):  # three steps forward at most
        assert launch(*finetune_words, "--out", out, "--resume", at=(CHECKPOINT, "sync", number, KILL)).code == -KILL
    assert launch(*finetune_words, "--out", out, "--resume").code == 0
    assert_same(out, undisturbed(finetune_words))


# ------------------------------------------------------------------------------------------------ damage


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # the best weights are linked into other checkpoints
    path.write_bytes(data)


def truncate(path: Path) -> None:
    data = path.read_bytes()[:-1]
    path.unlink()
    path.write_bytes(data)


@pytest.fixture(scope="session")
def killed(launch, tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A fine-tuning killed in its tenth step, with checkpoints of steps 8 and 9, and its command."""
    words = ["finetune", "classify", "--model", tiny.model, "--train", tiny.train, "--dev", tiny.dev, "--epochs", 3]
    words += ["--batch", 4, "--optim.lr", "1e-3", "--checkpoint-minutes", 0, "--precision", "float32"]
    out = tmp_path_factory.mktemp("killed") / "run"
    words = list(map(str, words))
    assert launch(*words, "--out", out, at=(LOOP, "clip_grad_norm_", 10, KILL)).code == -KILL
    return words, out


@pytest.mark.parametrize(
    ("damage", "name", "fault"),
    [
        (flip, "model.safetensors", "model.safetensors is damaged (its SHA-256"),
        (flip, "best.safetensors", "best.safetensors is damaged (its SHA-256"),
        (truncate, "optimizer.safetensors", "optimizer.safetensors is damaged (its SHA-256"),
        (Path.unlink, "state.json", "state.json is missing"),
        (truncate, "manifest.json", "manifest.json is missing or damaged"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    damage: Callable[[Path], Any], name: str, fault: str, launch, killed, undisturbed, tmp_path: Path
):
    words, out = killed
    run = shutil.copytree(out, tmp_path / "run")
    damage(run / "checkpoints" / "step-00000009" / name)
    again = launch(*words, "--out", run, "--resume")
    assert again.code == 0, again.err
    assert f"step-00000009: {fault}" in again.err
    assert "resumed at step 8" in again.err
    assert_same(run, undisturbed(words))


def test_the_best_weights_are_those_of_the_checkpoint(launch, killed, tmp_path: Path):
    """What stands there may be from an epoch that is taken again, or damaged."""
    words, out = killed
    run = shutil.copytree(out, tmp_path / "run")
    flip(run / "checkpoints" / "best.safetensors")
    assert launch(*words, "--out", run, "--resume", at=(LOOP, "learning_rate", 1, KILL)).code == -KILL
    kept = run / "checkpoints" / "step-00000009" / "best.safetensors"
    assert (run / "checkpoints" / "best.safetensors").read_bytes() == kept.read_bytes()


def test_no_good_checkpoint_is_one_line(launch, killed, tmp_path: Path):
    words, out = killed
    run = shutil.copytree(out, tmp_path / "run")
    for path in run.glob("checkpoints/step-*/model.safetensors"):
        truncate(path)
    ended = launch(*words, "--out", run, "--resume")
    assert ended.code == 2
    assert "no undamaged checkpoint to resume from; " in ended.err
    assert ended.err.count("model.safetensors is damaged") == 2
    assert ended.err.splitlines()[-1].endswith("start again without --resume and with another --out")
    assert "Traceback" not in ended.err


# -------------------------------------------------------------------------------------- what may not change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--optim.lr", "2e-3"], "--resume: optim.lr is 0.002, but the run in "),
        (["--epochs", "4"], "--resume: epochs is 4, but the run in "),
        (["--seed", "7"], "--resume: seed is 7, but the run in "),
        (["--classify.class-weights", "balanced"], "--resume: classify.class_weights is 'balanced', but the run in "),
    ],
)
def test_changed_settings_are_refused(change: list[str], told: str, launch, killed):
    words, out = killed
    ended = launch(*words, *change, "--out", out, "--resume")
    assert ended.code == 2
    assert ended.err.startswith(f"bothways: error: {told}")
    assert "config.toml --resume)" in ended.err


@pytest.mark.parametrize(("name", "told"), [("train", "training"), ("dev", "dev")])
def test_changed_data_are_refused(name: str, told: str, launch, killed, tiny, tmp_path: Path):
    words, out = killed
    run = shutil.copytree(out, tmp_path / "run")
    file: Path = getattr(tiny, name)
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(before.replace('"good"', '"bad"', 1), encoding="utf-8")
        ended = launch(*words, "--out", run, "--resume")
    finally:
        file.write_text(before, encoding="utf-8")
    assert ended.code == 2
    assert f"--resume: the {told} data have changed since the run in " in ended.err


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (b'task = "classify"\nout = "ru', "config.toml: not TOML: Unterminated string"),
        (b'task = "classify"\nout = \n', "config.toml:2: not TOML: Invalid value"),
        (b"\xff\xfe", "config.toml: not UTF-8; save it as UTF-8"),
    ],
)
def test_damaged_settings_are_one_line(damage: bytes, told: str, launch, killed, tmp_path: Path):
    words, out = killed
    run = shutil.copytree(out, tmp_path / "run")
    (run / "config.toml").write_bytes(damage)
    ended = launch(*words, "--out", run, "--resume")
    assert ended.code == 2
    assert ended.err.startswith(f"bothways: error: {run}/{told}")
    assert ended.err.count("\n") == 1


def test_another_number_of_threads_is_told(launch, killed, tmp_path: Path):
    words, out = killed
    run = shutil.copytree(out, tmp_path / "run")
    ended = launch(*words, "--out", run, "--resume", threads=2)
    assert ended.code == 0
    assert "this run began with 1 threads and goes on with 2: sums will differ" in ended.err


def test_the_run_s_own_settings_are_enough(launch, killed, undisturbed, tmp_path: Path):
    words, out = killed
    run = shutil.copytree(out, tmp_path / "run")
    ended = launch("finetune", "--config", run / "config.toml", "--out", run, "--resume")
    assert ended.code == 0, ended.err
    assert_same(run, undisturbed(words))


@pytest.mark.parametrize("verb", ["finetune", "pretrain"])
def test_a_finished_run_stays_as_it_is(verb: str, launch, undisturbed, request):
    words = request.getfixturevalue(f"{verb}_words")
    run = undisturbed(words)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    ended = launch(*words, "--out", run, "--resume")
    assert ended.code == 0
    assert "has finished already" in ended.err
    assert ended.out.splitlines()[-1].split() == ["model", str(run / "model")]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_nothing_to_resume(launch, finetune_words, pretrain_words, tmp_path: Path):
    for words in (finetune_words, pretrain_words):
        ended = launch(*words, "--out", tmp_path / "none", "--resume")
        assert ended.code == 2
        assert "holds no run (config.toml is missing); start without --resume" in ended.err
    assert not (tmp_path / "none").exists()


# ----------------------------------------------------------------------------------------------- minutes


def test_minutes_become_a_number_of_steps_once(launch, pretrain_words, tmp_path: Path):
    at = pretrain_words.index("--steps")
    words = [*pretrain_words[:at], *pretrain_words[at + 2 :], "--minutes", "0.02"]
    out = tmp_path / "run"
    # 10 steps are timed; the kill comes before the first checkpoint that a step makes
    assert launch(*words, "--out", out, at=(LOOP, "clip_grad_norm_", 11, KILL)).code == -KILL
    planned = json.loads((out / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])["steps"]
    ended = launch(*words, "--out", out, "--resume")
    assert ended.code == 0, ended.err
    assert "resumed at step 0" in ended.err
    assert steps_of(out)[-1]["step"] == planned

    fixed = [*pretrain_words[:at], *pretrain_words[at + 2 :], "--steps", str(planned)]
    assert launch(*fixed, "--out", tmp_path / "fixed").code == 0
    assert_same(out, tmp_path / "fixed")  # what was timed left no trace


def test_minutes_of_fine_tuning_too(launch, finetune_words, tmp_path: Path):
    at = finetune_words.index("--epochs")
    words = [*finetune_words[:at], *finetune_words[at + 2 :], "--minutes", "0.02"]
    out = tmp_path / "run"
    assert launch(*words, "--out", out, at=(LOOP, "clip_grad_norm_", 11, KILL)).code == -KILL
    saved = json.loads((out / "checkpoints" / "step-00000000" / "state.json").read_text(encoding="utf-8"))
    ended = launch(*words, "--out", out, "--resume")
    assert ended.code == 0, ended.err
    assert "resumed at step 0" in ended.err
    steps = steps_of(out)
    assert steps[-1]["step"] == saved["steps"]
    assert "dev" in steps[-1]  # though it may end no epoch


def test_a_stopped_seed_goes_on(launch, finetune_words, tmp_path: Path):
    words = [*finetune_words, "--seeds", "2"]
    assert launch(*words, "--out", tmp_path / "through").code == 0
    out = tmp_path / "run"
    assert launch(*words, "--out", out, at=(LOOP, "clip_grad_norm_", 25, KILL)).code == -KILL
    ended = launch(*words, "--out", out, "--resume")
    assert ended.code == 0, ended.err
    for part in ("seed-0", "seed-1"):
        assert_same(out / part, tmp_path / "through" / part)
    assert weights_of(out) == weights_of(tmp_path / "through")
