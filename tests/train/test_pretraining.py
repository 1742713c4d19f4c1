"""What a pre-training leaves behind."""

from __future__ import annotations

from pathlib import Path

from bothways.models.model import load


def test_without_a_sentence_loss_there_is_no_pooler(launch, pretrain_words, tmp_path: Path):
    """The model that it goes on from has one; nothing would train it, and fine-tuning begins a fresh one anyway."""
    assert launch(*pretrain_words, "--corpus.second", "none", "--out", tmp_path / "run").code == 0
    model = load(tmp_path / "run")
    assert model.network.encoder.pooler is None
    assert list(model.network.heads) == ["masked"]
