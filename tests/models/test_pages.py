"""Memory that is mapped from a file is given back where nothing of it was changed, and only there."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from bothways.infer.prepared import prepare
from bothways.models import pages
from bothways.models.model import fresh, load, save
from bothways.models.pages import PAGES, let_go
from bothways.models.weights import read_tensors
from bothways.nn.encoder import EncoderConfig, EncoderLayer
from bothways.text.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(not PAGES.is_file(), reason="the system does not tell of pages")
NUMBERS = 64 * mmap.PAGESIZE // 4


def here(tensor: Tensor) -> float:
    """The share of its pages that are in memory."""
    first, last = -(-tensor.data_ptr() // mmap.PAGESIZE), (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE
    with PAGES.open("rb") as file:
        file.seek(8 * first)
        states = np.frombuffer(file.read(8 * (last - first)), dtype=np.uint64)
    return float((states >> np.uint64(63)).mean())


@pytest.fixture
def mapped(tmp_path: Path) -> dict[str, Tensor]:
    """Two tensors of a file, all of it in memory, and what they are copies of."""
    plain = {name: torch.randn(NUMBERS) for name in ("a", "b")}
    safetensors.torch.save_file(plain, tmp_path / "tensors")
    tensors = read_tensors(tmp_path / "tensors", mapped=True)
    assert all(torch.equal(tensors[name], plain[name]) for name in plain)
    assert all(here(tensor) == 1 for tensor in tensors.values())
    return tensors | {f"{name} copied": tensor for name, tensor in plain.items()}


def test_what_was_not_changed_is_given_back_and_read_again(mapped: dict[str, Tensor]) -> None:
    let_go(mapped["a"])
    assert (here(mapped["a"]), here(mapped["b"])) == (0, 1)
    assert torch.equal(mapped["a"], mapped["a copied"])
    assert here(mapped["a"]) == 1


def test_what_was_changed_is_kept(mapped: dict[str, Tensor]) -> None:
    mapped["a"][NUMBERS // 2] = 7.0
    before = mapped["a"].clone()
    let_go(mapped["a"])
    assert torch.equal(mapped["a"], before)


def test_memory_of_other_kinds_is_kept(mapped: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    copied = mapped["a copied"]
    before = copied.clone()
    for tensor in (copied, copied[3:-5], copied[:7], copied[:0], torch.empty(0), torch.empty(3, device="meta")):
        let_go(tensor)
    assert torch.equal(copied, before)
    monkeypatch.setattr(pages, "PAGES", Path("/nothing/pagemap"))
    let_go(mapped["b"])
    assert here(mapped["b"]) == 1


def test_what_was_laid_out_anew_is_given_back(tmp_path: Path) -> None:
    """Of a model that is mapped, the weights of products; they are there when they are asked for again."""
    config = EncoderConfig(vocab_size=5, hidden_size=192, num_hidden_layers=1, num_attention_heads=2)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    save(fresh(config, Tokenizer.from_vocab(vocabulary), None), tmp_path / "model")
    network = load(tmp_path / "model", mapped=True).network
    wanted = load(tmp_path / "model").network.state_dict()
    layer = network.encoder.layers[0]
    assert isinstance(layer, EncoderLayer)
    given_back = [layer.mlp.up.weight, layer.mlp.down.weight, layer.attention.output.weight]
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())
    assert [here(weight.detach()) for weight in given_back] == [1, 1, 1]
    prepare(network, "int8")
    assert [here(weight.detach()) for weight in given_back] == [0, 0, 0]
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())
