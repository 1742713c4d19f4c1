"""The model in the package: small, what its card says, useful as it is, and a plain folder for transformers."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from runs.heads_data import OPEN
from tests.toys import bothways

from bothways.infer.predictor import Predictor, load

FOLDER = Path(__file__).resolve().parent.parent / "src" / "bothways" / "builtin"
SENTENCES = ["小明去年在北京大学学习。", "Ada Lovelace met Charles Babbage in London."]


@pytest.fixture(scope="module")
def model() -> Predictor:
    return load("builtin", device="cpu")


def test_it_is_small(model: Predictor) -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(sizes.values()) <= 20e6
    assert sizes["model.compact.safetensors"] <= 15e6
    assert 8e6 <= sum(one.numel() for one in model.model.network.encoder.parameters()) <= 14e6


def test_its_card_names_what_its_heads_were_made_from() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card
    assert all(f"| {head.name} | {head.source} | {head.licence} |" in card for head in OPEN)


def test_it_finds_words_and_entities_in_both_languages(model: Predictor) -> None:
    chinese, english = model.analyze(SENTENCES)
    assert [word["text"] for word in chinese["words"]][:3] == ["小明", "去年", "在"]
    assert ("London", "LOC") in {(one["text"], one["label"]) for one in english["entities"]}
    assert any(one["label"] == "PER" for one in english["entities"])
    assert {word["pos"] for word in english["words"]} >= {"PROPN", "VERB", "ADP", "PUNCT"}


@pytest.mark.parametrize(
    ("text", "wanted"), [("他出生于1998年[MASK]月。", "10"), ("She was born in New [MASK] City.", "york")]
)
def test_it_fills_masks(model: Predictor, text: str, wanted: str) -> None:
    ((mask,),) = model.fill_mask([text])
    assert wanted in [one["token"] for one in mask["fillings"]]


def test_transformers_reads_it_and_each_of_its_heads(model: Predictor, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = None
    for head, kind in ((None, "AutoModel"), ("zh_entities", "AutoModelForTokenClassification")):
        words = () if head is None else ("--head", head)
        assert bothways("convert", "builtin", tmp_path / str(head), *words).code == 0
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / str(head))
        theirs = getattr(transformers, kind).from_pretrained(tmp_path / str(head)).eval()
        given = tokenizer(SENTENCES[0], return_tensors="pt")
        with torch.inference_mode():
            found = theirs(**given)
        if head is None:
            ours = model.embed(SENTENCES[:1], level="token")[0].vectors
            assert torch.allclose(found.last_hidden_state[0, 1:-1], torch.tensor(ours), atol=1e-4)
        else:
            alone = load(tmp_path / head, device="cpu")
            assert theirs.config.id2label == dict(enumerate(alone.model.task.tags.names))
            tags = [theirs.config.id2label[int(number)] for number in found.logits[0, 1:-1].argmax(dim=1)]
            spans = model.analyze(SENTENCES[0])["entities"]
            assert sum(tag.startswith("B-") or tag.startswith("S-") for tag in tags) >= len(spans) > 0


@pytest.mark.slow
def test_a_wheel_has_it(tmp_path: Path) -> None:
    root = FOLDER.parents[2]
    words = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(root),
    )
    if subprocess.run((sys.executable, "-c", "import hatchling"), capture_output=True).returncode:
        pytest.skip("no hatchling here to build with")
    subprocess.run(words, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"bothways/builtin/{path.name}" for path in FOLDER.iterdir()} <= set(names)
    assert wheel.stat().st_size <= 20e6
