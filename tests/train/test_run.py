"""What a run settles before it begins, and what it measures once it is over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import bothways
from bothways.data.records import read_records
from bothways.errors import ConfigError, TrainingError
from bothways.infer import devices
from bothways.infer.answering import Answering
from bothways.train import training
from bothways.train.folder import Run, RunFolder
from bothways.train.log import RunLog, read_log
from bothways.train.loop import Progress
from bothways.train.ranks import Ranks
from bothways.train.run import PretrainRun


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that may use one core of a machine for which PyTorch starts two threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "available_cores", lambda: 1)
    for settled in (devices.settle_threads, devices.settle_cpu):
        settled.cache_clear()
    yield
    for settled in (devices.settle_threads, devices.settle_cpu):
        settled.cache_clear()


def threads_of(run: Any) -> int:
    (told,) = [entry["hardware"]["threads"] for entry in read_log(run.folder / "log.jsonl") if "hardware" in entry]
    return told


def test_training_has_no_more_threads_than_cores(tiny, tmp_path, one_core) -> None:
    """Without dev records nothing else would settle them: they are answered by an engine."""
    settings: dict[str, Any] = {"model": str(tiny.model), "quiet": True}
    assert torch.get_num_threads() == 2
    run = bothways.finetune("classify", train=tiny.train, out=tmp_path / "tuned", epochs=1, **settings)
    assert threads_of(run) == 1
    torch.set_num_threads(2)
    devices.settle_threads.cache_clear()
    corpus = {"max_length": 24, "workers": 1}
    run = bothways.pretrain(text=tiny.text, out=tmp_path / "pretrained", steps=1, corpus=corpus, **settings)
    assert threads_of(run) == 1


def test_threads_that_are_asked_for_stay(one_core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    devices.settle_threads()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_batches_are_pinned_for_a_gpu_alone(device: str, pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one there is nothing to pin them by."""
    asked: list[bool] = []
    monkeypatch.setattr(training, "prefetched", lambda steps, *, pinned: asked.append(pinned))
    run: Any = SimpleNamespace(source=None, size=None, ranks=Ranks(), device=torch.device(device))
    training._steps(run, Progress())
    assert asked == [pinned]


def test_a_run_s_settings_are_written_whole(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them could not be read by --resume, or would be read as other ones."""

    def full(path: Path, text: str, **named: Any) -> None:
        path.write_bytes(text.encode()[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    folder = RunFolder(tmp_path / "run", Ranks(), resume=False, quiet=True)
    with pytest.raises(OSError, match="No space left"):
        folder.make(PretrainRun(text=[], out=tmp_path / "run"))
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("verb", ["finetune", "pretrain"])
def test_weights_that_are_not_finite_are_no_model(verb: str, tiny, tmp_path) -> None:
    """After the last step there is no other whose gradient would tell."""
    given: dict[str, Any] = {"train": tiny.train, "epochs": 1, "batch": 100}
    run = partial(bothways.finetune, "classify")
    if verb == "pretrain":
        given = {"text": tiny.text, "steps": 1, "corpus": {"max_length": 24, "workers": 1}}
        run = bothways.pretrain
    optim = {"method": "adamw", "lr": 1e300, "warmup": 0.0}
    with pytest.raises(TrainingError) as told:
        run(model=str(tiny.model), out=tmp_path / "run", optim=optim, quiet=True, **given)
    assert str(told.value) == (
        "step 1: encoder.embeddings.word.weight is no longer finite, and no model has been saved; "
        "try a lower --optim.lr (it is 1e+300) or --precision float32"
    )
    assert not (tmp_path / "run" / "model").exists()


def test_the_hash_of_records_sees_text_labels_and_order() -> None:
    rows = [{"text": "a day", "label": "good"}, {"text": "a film\ud83d", "label": 2}]
    changed = [rows[::-1], rows[:1], [rows[0] | {"label": "bad"}, rows[1]], [rows[0] | {"text": "one day"}, rows[1]]]
    hashes = [training.records_hash(read_records(one)) for one in (rows, *changed)]
    assert len(set(hashes)) == 5
    assert training.records_hash(read_records(rows)) == hashes[0]


# ---------------------------------------------------------------------------------------------- precision


def points_lost(model: Path) -> Any:
    return json.loads((model / "bothways.json").read_text(encoding="utf-8")).get("points_lost")


def tuned(tiny: Any, out: Path) -> Run:
    settings: dict[str, Any] = {"model": str(tiny.model), "epochs": 1, "precision": "float32", "quiet": True}
    return bothways.finetune("classify", train=tiny.train, dev=tiny.dev, out=out, **settings)


def in_bfloat16(monkeypatch: pytest.MonkeyPatch, change: float) -> None:
    """A processor with products of bfloat16, in which the accuracy is 0.5 + `change`; in float32 it is 0.5."""
    score = Answering.score

    def scripted(self: Answering, *given: Any, **options: Any) -> dict[str, Any]:
        low = self.engine.precision == "bfloat16"
        return score(self, *given, **options) | {"accuracy": 0.5 + change * low}

    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: True)
    monkeypatch.setattr(Answering, "score", scripted)


@pytest.mark.parametrize(
    ("change", "lost", "chosen"),
    [
        (-0.0019, 0.19, "bfloat16"),
        (-0.0021, 0.21, "float32"),
        (0.01, -1.0, "bfloat16"),
        (float("nan"), 100.0, "float32"),
    ],
)
def test_auto_takes_no_precision_that_loses_on_dev(
    change: float, lost: float, chosen: str, tiny, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bfloat16(monkeypatch, change)
    run = tuned(tiny, tmp_path / "run")
    assert points_lost(run.model) == {"bfloat16": pytest.approx(lost)}
    assert "## Points of accuracy lost on dev, against float32" in (run.model / "README.md").read_text("utf-8")
    assert bothways.load(run.folder, precision="auto").engine.precision == chosen
    assert bothways.load(run.folder, precision="bfloat16").engine.precision == "bfloat16"  # what is asked for is done


def test_what_was_not_measured_is_taken_on_trust(tiny, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor that answers in float32 anyhow there is nothing to measure."""
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: False)
    run = tuned(tiny, tmp_path / "run")
    assert points_lost(run.model) is None
    assert bothways.load(run.folder, precision="auto").engine.precision == "float32"
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: True)
    assert bothways.load(run.folder, precision="auto").engine.precision == "bfloat16"


def test_of_a_frozen_encoder_what_it_loses_itself_is_measured(tiny, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kept vectors are in float32, and lose nothing."""
    in_bfloat16(monkeypatch, -0.004)
    score, seen = Answering.score, []

    def watched(self: Answering, records: Any, encoded: Any = None, **options: Any) -> dict[str, Any]:
        if encoded is not None:
            kept = [example.vectors is not None for one in encoded for example in one.examples]
            seen.append((self.engine.precision, all(kept), any(kept)))
        return score(self, records, encoded, **options)

    monkeypatch.setattr(Answering, "score", watched)
    settings: dict[str, Any] = {"model": str(tiny.model), "epochs": 2, "precision": "float32", "quiet": True}
    run = bothways.finetune(
        "classify", train=tiny.train, dev=tiny.dev, out=tmp_path / "run", frozen=True, optim={"lr": 1e-3}, **settings
    )
    assert {("float32", True, True), ("bfloat16", False, False)} == {*seen}
    assert points_lost(run.model) == {"bfloat16": pytest.approx(0.4)}


def test_a_score_without_points_tells_of_no_loss(tiny, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: True)
    texts = [{"text": "a lovely day"}, {"text": "the film was bad"}] * 4
    settings: dict[str, Any] = {"model": str(tiny.model), "epochs": 1, "precision": "float32", "quiet": True}
    run = bothways.finetune("embed", train=texts, dev=texts, out=tmp_path / "run", **settings)
    assert points_lost(run.model) is None


def test_points_lost_are_kept_when_a_model_is_saved_again(tiny, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bothways.models.model import load, save

    in_bfloat16(monkeypatch, -0.004)
    model = load(tuned(tiny, tmp_path / "run").model)
    assert points_lost(save(model, tmp_path / "again")) == model.points_lost == {"bfloat16": pytest.approx(0.4)}


def test_a_log_holds_half_of_a_surrogate_pair(tmp_path) -> None:
    log = RunLog(tmp_path / "log.jsonl", quiet=True)
    log.open(keep_until_step=None)
    log.write({"step": 1, "told": "a\ud83d"})
    log.close()
    log.open(keep_until_step=1)
    log.close()
    assert read_log(tmp_path / "log.jsonl") == [{"step": 1, "told": "a\ud83d"}]


def test_no_longer_text_is_asked_for_than_the_model_reads(tiny, tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"^batching\.max_length is 33, and the model reads 32 at most; ask for no more$"
    ):
        bothways.finetune(
            "classify", model=str(tiny.model), train=tiny.train, out=tmp_path / "run", batching={"max_length": 33}
        )
    assert not (tmp_path / "run").exists()
