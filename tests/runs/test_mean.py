"""The mean of two models' weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import mean

from bothways.models.model import fresh, load, save
from bothways.nn.encoder import EncoderConfig
from bothways.text.files import SPECIALS
from bothways.text.tokenizer import Tokenizer


def saved(folder: Path, *, width: int = 16) -> Path:
    """A tiny model with weights of its own."""
    tokenizer = Tokenizer.from_vocab([*SPECIALS, "cat", "dog"])
    shape = EncoderConfig(
        vocab_size=tokenizer.size, hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    return save(fresh(shape, tokenizer, None), folder)


def test_each_weight_is_the_mean_of_both(tmp_path: Path, capsys):
    folders = [saved(tmp_path / name) for name in "ab"]
    assert mean.main([str(tmp_path / "made"), *map(str, folders)]) == 0
    made, *both = (load(folder).network.state_dict() for folder in (tmp_path / "made", *folders))
    assert any(not torch.equal(weight, both[1][name]) for name, weight in both[0].items())
    for name, weight in made.items():
        torch.testing.assert_close(weight, (both[0][name] + both[1][name]) / 2)


def test_models_of_two_shapes_have_none(tmp_path: Path):
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", width=32)
    with pytest.raises(SystemExit, match="not of one shape"):
        mean.main([str(tmp_path / "made"), str(first), str(second)])
    assert not (tmp_path / "made").exists()
