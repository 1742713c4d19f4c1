"""Attention: rows that sum to one, equal to transformers' weights, and a page that needs nothing else."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.serve import toys

from bothways.cli.main import main
from bothways.errors import DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import save
from bothways.serve.attention import html, packed


def test_weights_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import BertModel

    predictor = toys.predictor("pairs")
    shown = predictor.attention("Ada wrote", "我们")
    tokens = ["[CLS]", "Ada", "wrote", "[SEP]", "我", "们", "[SEP]"]
    assert shown["tokens"] == tokens
    assert shown["segments"] == [0, 0, 0, 0, 1, 1, 1]
    assert shown["weights"].shape == (2, 4, 7, 7)
    assert np.allclose(shown["weights"].sum(-1), 1, atol=1e-5)
    theirs = BertModel.from_pretrained(save(predictor.model, tmp_path / "m"), attn_implementation="eager")
    ids = torch.tensor([[predictor.model.tokenizer.id(token) for token in tokens]])
    with torch.no_grad():
        told = theirs(ids, token_type_ids=torch.tensor([shown["segments"]]), output_attentions=True).attentions
    assert np.allclose(shown["weights"], torch.cat(told).numpy(), atol=1e-5)


def test_what_does_not_fit_is_told() -> None:
    shown = toys.predictor("mood").attention("a " * 200)
    assert (len(shown["tokens"]), shown["dropped"]) == (96, 106)


@pytest.mark.parametrize(
    ("texts", "message"),
    [((" ",), "<texts>:1: the text is empty"), (("a", ""), "<texts>:2: the text is empty"), ((5,), "found int")],
)
def test_what_cannot_be_shown(texts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        toys.predictor("mood").attention(*texts)


def weights_in(data: dict[str, Any]) -> np.ndarray:
    count = len(data["tokens"])
    raw = np.frombuffer(zlib.decompress(base64.b64decode(data["weights"])), np.uint8)
    return (raw.reshape(data["layers"], data["heads"], count, count) / 255) ** 2


def test_packing_keeps_what_an_eye_can_see() -> None:
    shown = toys.predictor("mood").attention("Ada wrote the first program")
    assert np.allclose(weights_in(packed(shown)), shown["weights"], atol=1 / 255)


def test_the_page_holds_everything_and_no_token_breaks_out(tmp_path: Path) -> None:
    shown = toys.predictor("mood").attention("Ada wrote")
    shown["tokens"][1] = "</script><script>alert(1)</script>{{DATA}}\u2028"
    page = html(shown, title="<b>&</b>")
    assert page.count("</script>") == 2
    assert "<title>&lt;b>&amp;&lt;/b></title>" in page
    assert not re.search(r"https?://|src=|href=\"(?!data:)", page)
    data = re.search(r'id="data">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1])["tokens"] == shown["tokens"]


def test_the_verb_writes_a_file_at_512_tokens(tmp_path: Path, capsys: Any) -> None:
    task = toys.predictor("mood").model.task
    folder = save(toys.model(task, positions=512), tmp_path / "m")
    out = tmp_path / "a.html"
    assert main(["attention", str(folder), "a b " * 300, "--out", str(out)]) == 0
    assert (
        f"2 layers of 4 heads over 512 tokens in {out}; 90 tokens at the end were not read" in capsys.readouterr().out
    )
    assert out.stat().st_size < 3_000_000
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert main(["attention", str(folder), "a", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["attention", str(folder), "a", "--out", str(tmp_path / "a.txt")]) == 2
    assert "give a name that ends in .html" in capsys.readouterr().err
    assert main(["attention", str(folder), " ", "--out", str(tmp_path / "b.html")]) == 2
    assert not (tmp_path / "b.html").exists()


def test_a_model_without_a_task_shows_its_attention_too() -> None:
    shown = Predictor(toys.model(None), device="cpu").attention("Ada")
    assert shown["tokens"] == ["[CLS]", "Ada", "[SEP]"]
