"""What a pre-training finds before the long work, what it tells, and what it leaves behind."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bothways
from bothways.errors import BothwaysError, ConfigError, DataError
from bothways.models.model import load
from bothways.train import log, pretraining
from bothways.train.log import read_log


def test_without_a_sentence_loss_there_is_no_pooler(launch, pretrain_words, tmp_path: Path):
    """The model that it goes on from has one; nothing would train it, and fine-tuning begins a fresh one anyway."""
    assert launch(*pretrain_words, "--corpus.second", "none", "--out", tmp_path / "run").code == 0
    model = load(tmp_path / "run")
    assert model.network.encoder.pooler is None
    assert list(model.network.heads) == ["masked"]


# ---------------------------------------------------------------------------------------------- mistakes

FRESH = {"model": "1x64", "vocab_size": 100, "steps": 2, "step_tokens": 64, "corpus": {"max_length": 24, "workers": 1}}


def pretrained(tiny: Any, out: Path, **given: Any) -> Any:
    return bothways.pretrain(**{"text": tiny.text, "out": out, **FRESH, "quiet": True, **given})


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made of texts, in order: "vocabulary", and the names of their shards' folders."""
    made: list[str] = []
    learn, build = pretraining.learn_tokenizer, pretraining.build_shards
    monkeypatch.setattr(
        pretraining, "learn_tokenizer", lambda *args, **named: made.append("vocabulary") or learn(*args, **named)
    )
    monkeypatch.setattr(
        pretraining, "build_shards", lambda *args, **named: made.append(args[2].name) or build(*args, **named)
    )
    return made


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": "1x16"}, "1x16: a width of 16 is no multiple of 64, the width of a head"),
        ({"corpus": {"mask_rate": 15}}, "corpus.mask_rate is 15.0; wanted a number between 0 and 1"),
        ({"corpus": {"max_length": 100_000_000}}, "corpus.max_length is 100000000; it must be at most 16,777,216"),
    ],
)
def test_a_mistake_in_settings_is_told_before_text_is_read(given: dict[str, Any], told: str, tiny, work, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(told)):
        pretrained(tiny, tmp_path / "run", **given)
    assert work == []
    assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_fit_is_told_before_text_is_tokenised(tiny, work, tmp_path):
    with pytest.raises(ConfigError, match=r"^corpus\.max_length is 33, but .* reads 32 tokens at most$"):
        pretrained(tiny, tmp_path / "run", model=str(tiny.model), corpus={"max_length": 33})
    damaged = shutil.copytree(tiny.model, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BothwaysError, match=r"model\.safetensors"):
        pretrained(tiny, tmp_path / "run", model=str(damaged))
    assert work == []
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_that_was_learnt_outlives_a_mistake_in_dev(tiny, work, tmp_path, capsys):
    """Held-out text that is too short is told before the other is tokenised; once it is longer, the run goes on."""
    dev, out = tmp_path / "dev.txt", tmp_path / "run"
    dev.write_text("the\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"the held-out text \(--dev\) makes no sequence; more text is needed"):
        pretrained(tiny, out, dev=dev, quiet=False)
    assert work == ["vocabulary", "shards-dev"]
    told = f"what was made of the text is kept in {out}: mend this, and give the same command with --resume\n"
    assert capsys.readouterr().err.endswith(told)
    dev.write_text("the film was a long day .\n\nin town we saw it with some friends .\n", encoding="utf-8")
    pretrained(tiny, out, dev=dev, resume=True)
    assert work[2:] == ["shards-dev", "shards"]


def test_shards_outlive_a_later_failure(tiny, work, tmp_path, monkeypatch):
    def broken(*args: Any, **named: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "Training", broken)
        with pytest.raises(RuntimeError):
            pretrained(tiny, tmp_path / "run")
    manifest = tmp_path / "run" / "shards" / "manifest.json"
    made = manifest.stat().st_mtime_ns
    run = pretrained(tiny, tmp_path / "run", resume=True)
    assert (run.model / "config.json").is_file()
    assert work == ["vocabulary", "shards", "shards"]
    assert manifest.stat().st_mtime_ns == made


@pytest.mark.parametrize("apart", [False, True])
def test_text_that_makes_no_sequence_leaves_nothing(tiny, tmp_path, apart):
    """Neither its vocabulary nor its shards are of use, for it has to be another text."""
    text = tmp_path / "text.txt"
    text.write_text("word\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"text\.txt: 4 tokens of text make no sequence to learn from"):
        pretrained(tiny, tmp_path / "run", text=text, shards=tmp_path / "shards" if apart else None)
    assert not (tmp_path / "run").exists()
    assert bool(list(tmp_path.glob("shards/*"))) == apart  # a shared folder may be another run's


# --------------------------------------------------------------------------------------- what is told


def test_what_is_left_out_is_told(tiny, tmp_path, capsys):
    """A document of one word makes no pair, a sentence longer than a sequence is read in parts."""
    text = tmp_path / "text.txt"
    text.write_text(tiny.text.read_text(encoding="utf-8") + "\n\nthe\n\n" + "day " * 50 + "\n", encoding="utf-8")
    run = pretrained(tiny, tmp_path / "run", text=text, quiet=False)
    (begun,) = [entry for entry in read_log(run.folder / "log.jsonl") if "coverage" in entry]
    found = begun["coverage"]
    assert found["corpus_tokens"] == begun["corpus_tokens"]
    assert found["cut_sentences"] >= 1
    assert found["unpaired_tokens"] >= 1
    read = found["corpus_tokens"] - found["unpaired_tokens"] - found["truncated_tokens"]
    told = capsys.readouterr().err
    assert f"in the first epoch {read:,} of them are read, in {found['sequences']:,} sequences; " in told
    assert f"; {found['unpaired_tokens']:,} left out, in stretches of one word, which make no pair" in told
    assert f"; {found['cut_sentences']:,} sentences are longer than a sequence and read in parts" in told


def test_the_rate_is_that_of_the_steps(tiny, tmp_path, capsys, monkeypatch):
    """Learning a vocabulary and tokenising come before; here that takes a thousand seconds."""
    late = [0.0]
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late[0]))
    prepare = pretraining._prepare

    def slow(*args: Any) -> Any:
        late[0] += 1000
        return prepare(*args)

    monkeypatch.setattr(pretraining, "_prepare", slow)
    run = pretrained(tiny, tmp_path / "run", quiet=False)
    tokens = run.scores["tokens"]
    rate = re.findall(r"step 2/2 .* ([\d,]+) tokens/s", capsys.readouterr().err)[-1]
    assert tokens / 100 < int(rate.replace(",", ""))


def card_of(run: Any) -> dict[str, Any]:
    """The sections of a card."""
    parts = (run.model / "README.md").read_text(encoding="utf-8").split("## ")[1:]
    return {part.partition("\n")[0]: json.loads(part.split("```json\n")[1].split("\n```")[0]) for part in parts}


def test_a_card_parts_scores_from_steps(tiny, tmp_path):
    alone = card_of(pretrained(tiny, tmp_path / "alone"))
    assert "Scores on held-out text" not in alone
    assert set(alone["Training"]) == {"steps", "tokens", "seconds"}
    scored = card_of(pretrained(tiny, tmp_path / "scored", dev=tiny.dev))
    assert "masked_accuracy" in scored["Scores on held-out text"]
    assert "seconds" not in scored["Scores on held-out text"]


def test_seconds_are_those_of_the_whole_run(launch, pretrain_words, tmp_path):
    """Of steps taken before a kill too; a checkpoint of a time when they were not kept counts from 0."""
    out = tmp_path / "run"
    assert launch(*pretrain_words, "--out", out, at=("bothways.train.loop", "clip_grad_norm_", 9, 9)).code == -9
    newest = max(out.glob("checkpoints/step-*"))
    state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    assert state["progress"]["seconds"] > 0
    old = shutil.copytree(out, tmp_path / "old")
    for run, seconds in ((out, 5000.0), (old, None)):
        change_state(run / newest.relative_to(out), seconds)
        ended = launch(*pretrain_words, "--out", run, "--resume")
        assert ended.code == 0, ended.err
        (scores,) = [entry["finished"] for entry in read_log(run / "log.jsonl") if "finished" in entry]
        assert (scores["seconds"] > 5000) == (seconds is not None)


def change_state(checkpoint: Path, seconds: float | None) -> None:
    import hashlib

    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    del state["progress"]["seconds"]
    if seconds is not None:
        state["progress"]["seconds"] = seconds
    state.pop("dev", None)
    written = json.dumps(state).encode()
    (checkpoint / "state.json").write_bytes(written)
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    manifest["state.json"] = hashlib.sha256(written).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_changed_held_out_text_is_refused(launch, pretrain_words, tiny, tmp_path):
    out, dev = tmp_path / "run", tmp_path / "dev.jsonl"
    shutil.copy(tiny.dev, dev)
    words = [str(dev) if word == str(tiny.dev) else word for word in pretrain_words]
    assert launch(*words, "--out", out, at=("bothways.train.loop", "clip_grad_norm_", 3, 9)).code == -9
    dev.write_text(dev.read_text(encoding="utf-8").replace("film", "day"), encoding="utf-8")
    shutil.rmtree(out / "shards-dev")  # else these are told to be of another text
    ended = launch(*words, "--out", out, "--resume")
    assert ended.code == 2
    assert ended.err.splitlines()[-1] == (
        f"bothways: error: --resume: the dev data have changed since the run in {out} was begun; "
        f"bring them back as they were, or start again with another --out"
    )
