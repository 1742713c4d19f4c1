"""Our encoder-decoder against transformers' EncoderDecoderModel: logits, folders both ways, and what is written."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from bothways.batch import Example, Piece, Read, pack
from bothways.infer.engine import Engine
from bothways.models.model import Model, fresh, load, save
from bothways.nn.constraints import drawn, restricted
from bothways.nn.decoding_settings import Decoding, Writing
from bothways.nn.encoder import EncoderConfig
from bothways.nn.network import TEXT
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.text.tokenizer import Tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *"今天气很好"]
CLS, SEP = 2, 3
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Threads cost more than they give in so small a network."""
    torch.set_num_threads(1)


def theirs_of(*, tied: bool = True, scale: float = 0.1, **decoder: Any) -> Any:
    """A random model of transformers whose every parameter matters."""
    encoder = transformers.BertConfig(vocab_size=len(VOCABULARY), **SHAPE)
    given = SHAPE | {"is_decoder": True, "add_cross_attention": True, "tie_word_embeddings": tied} | decoder
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        encoder, transformers.BertConfig(vocab_size=len(VOCABULARY), **given), tie_word_embeddings=tied
    )
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = CLS, SEP, 0
    model = transformers.EncoderDecoderModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    generation = model.generation_config
    generation.decoder_start_token_id, generation.eos_token_id, generation.pad_token_id = CLS, SEP, 0
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    Tokenizer.from_vocab(VOCABULARY).save(folder)
    return folder


def ours_of(**settings: Any) -> Model:
    config = EncoderConfig(vocab_size=len(VOCABULARY), initializer_range=0.2, **SHAPE)
    return fresh(config, Tokenizer.from_vocab(VOCABULARY), GenerateTask(GenerateSettings(**settings)))


def pairs(count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sources and targets of several lengths, in no order."""
    rng = np.random.default_rng(1)
    return [
        (rng.integers(1, len(VOCABULARY), rng.integers(2, 30)), rng.integers(1, len(VOCABULARY), rng.integers(1, 30)))
        for _ in range(count)
    ]


def padded(rows: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = torch.from_numpy(row), 1
    return ids, mask


def assert_logits_agree(ours: Model, theirs: Any) -> None:
    given = pairs()
    examples = [
        Example((Piece(source),), {TEXT: Read(np.arange(len(target)), np.array([len(target)]))}, decoder=Piece(target))
        for source, target in given
    ]
    with torch.no_grad():
        logits = ours.network.eval()(pack(examples))[TEXT]
        (ids, mask), (targets, target_mask) = padded([s for s, _ in given]), padded([t for _, t in given])
        wanted = theirs(
            input_ids=ids, attention_mask=mask, decoder_input_ids=targets, decoder_attention_mask=target_mask
        ).logits
    rows = [row[: len(target)] for row, (_, target) in zip(wanted, given, strict=True)]
    torch.testing.assert_close(logits, torch.cat(rows), **CLOSE)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_we_read_theirs(tied: bool, tmp_path: Path) -> None:
    theirs = theirs_of(tied=tied)
    ours = load(saved(theirs, tmp_path / "model"))
    assert ours.told == []
    assert ("weight" in dict(ours.network.head(TEXT).named_parameters())) is not tied
    assert_logits_agree(ours, theirs)


def test_a_decoder_of_another_shape(tmp_path: Path) -> None:
    more = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20, "hidden_act": "relu"}
    theirs = theirs_of(**more)
    ours = load(saved(theirs, tmp_path / "model"))
    assert_logits_agree(ours, theirs)
    again = transformers.EncoderDecoderModel.from_pretrained(save(ours, tmp_path / "again"))
    assert_logits_agree(ours, again.eval())


@pytest.mark.parametrize(
    "settings",
    [{}, {"tied": False}, {"decoder": "share"}, {"decoder": "share", "tied": False}, {"decoder_layers": 1}],
    ids=["tied", "untied", "shared", "shared-untied", "shallow"],
)
def test_they_read_ours_and_so_do_we(settings: dict[str, Any], tmp_path: Path) -> None:
    ours = ours_of(**settings, decoding=Decoding(beams=3, max_length=17, no_repeat_ngram=2, forbidden=["a", "b c"]))
    folder = save(ours, tmp_path / "model")
    theirs, info = transformers.EncoderDecoderModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_logits_agree(ours, theirs.eval())
    config = theirs.generation_config
    assert (config.num_beams, config.max_new_tokens, config.no_repeat_ngram_size) == (3, 17, 2)
    assert (config.decoder_start_token_id, config.eos_token_id, config.pad_token_id) == (CLS, SEP, 0)
    assert config.bad_words_ids[:2] == [[5], [6, 7]]
    assert len(config.bad_words_ids) == 2 + 4, "and the special tokens that are not the end"
    again = load(folder)
    assert again.told == []
    assert again.task is not None
    assert again.task.to_dict() == ours.task.to_dict()  # type: ignore[union-attr]
    assert again.parameters == ours.parameters
    for name, weight in ours.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], weight)


def test_their_generation_config_is_kept(tmp_path: Path) -> None:
    theirs = theirs_of()
    generation = theirs.generation_config
    generation.num_beams, generation.length_penalty, generation.max_length = 4, 2.0, 31
    generation.early_stopping, generation.no_repeat_ngram_size = True, 3
    ours = load(saved(theirs, tmp_path / "model"))
    assert isinstance(ours.task, GenerateTask)
    wanted = Decoding(beams=4, length_penalty=2.0, max_length=30, early_stopping="yes", no_repeat_ngram=3)
    assert ours.task.settings.decoding == wanted


# ------------------------------------------------------------------------------------------------------- writing

MOST = tuple((number,) for number in range(len(VOCABULARY)) if number not in (SEP, *range(5, 12)))
EARLY = {"early_stopping": True}
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # ours and theirs
    "plain": ({}, {}),
    "short": ({"length_penalty": -1.0}, {"length_penalty": -1.0}),
    "long": ({"length_penalty": 2.5}, {"length_penalty": 2.5}),
    "early": ({"early_stopping": "yes"}, EARLY),
    "never": ({"early_stopping": "never", "length_penalty": 0.5}, {"early_stopping": "never", "length_penalty": 0.5}),
    "min": ({"min_length": 9}, {"min_new_tokens": 9}),
    "ngrams": ({"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
    "once": ({"no_repeat_ngram": 1}, {"no_repeat_ngram_size": 1}),
    "forbidden": ({"forbidden": ((5,), (6, 7), (8, 9, 10))}, {"bad_words_ids": [[5], [6, 7], [8, 9, 10]]}),
    # With 16 beams of 8 pieces some continuations are of no beam: none of these is a finished text.
    "few": ({"forbidden": MOST, "early_stopping": "yes"}, {"bad_words_ids": [list(one) for one in MOST], **EARLY}),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Any]:
    """A model that ends its targets after some tokens, sometimes, and repeats itself."""
    torch.manual_seed(7)
    theirs = theirs_of(scale=0.25)
    with torch.no_grad():
        theirs.decoder.cls.predictions.bias[SEP] += 2.0
    return load(saved(theirs, tmp_path_factory.mktemp("two") / "model")), theirs


@pytest.mark.parametrize(("name", "beams"), [*product(OPTIONS, (1, 4)), ("few", 16)])
def test_the_same_is_written(name: str, beams: int, two: tuple[Model, Any]) -> None:
    ours, theirs = two
    options, their_options = OPTIONS[name]
    options = dict(options)
    forbidden = options.pop("forbidden", ())
    writing = Writing(Decoding(beams=beams, max_length=25, **options), CLS, SEP, forbidden)
    if beams == 1:  # they have no such things then, and warn
        their_options = {k: v for k, v in their_options.items() if k not in ("early_stopping", "length_penalty")}
    sources = [source for source, _ in pairs(30)]
    examples = [Example((Piece(source),), {}, decoding=writing) for source in sources]
    found = [answer.scores for answer in Engine(ours.network, device=torch.device("cpu")).answers(examples)]
    ids, mask = padded(sources)
    with torch.no_grad():
        wanted = theirs.generate(
            input_ids=ids,
            attention_mask=mask,
            num_beams=beams,
            max_new_tokens=25,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            **their_options,
        )
    lengths = set()
    for number, (one, row) in enumerate(zip(found, wanted.sequences.tolist(), strict=True)):
        target = row[1:]
        target = target[: target.index(SEP)] if SEP in target else target
        assert one["ids"].tolist() == target, number
        assert bool(one["ended"]) == (SEP in row[1:])
        lengths.add(len(target))
        if beams > 1:
            assert float(one["score"]) == pytest.approx(float(wanted.sequences_scores[number]), abs=1e-4, rel=1e-6)
    assert len(lengths) > 2 or name in ("short", "few")


def test_what_their_file_says_is_what_is_written(tmp_path: Path) -> None:
    torch.manual_seed(7)
    theirs = theirs_of(scale=0.25)
    with torch.no_grad():
        theirs.decoder.cls.predictions.bias[SEP] += 2.0
    generation = theirs.generation_config
    generation.num_beams, generation.min_length, generation.max_length = 3, 8, 25
    special = [[number] for number in range(5) if number != SEP]  # we never write them
    generation.bad_words_ids = [*special, [9], [10, 11], [SEP]]
    ours = load(saved(theirs, tmp_path / "model"))
    assert isinstance(ours.task, GenerateTask)
    sources = [source for source, _ in pairs(20)]
    writing = ours.task.writing(ours.tokenizer)
    examples = [Example((Piece(source),), {}, decoding=writing) for source in sources]
    found = [answer.scores for answer in Engine(ours.network, device=torch.device("cpu")).answers(examples)]
    ids, mask = padded(sources)
    with torch.no_grad():
        wanted = theirs.generate(input_ids=ids, attention_mask=mask)
    for one, row in zip(found, wanted.tolist(), strict=True):
        target = row[1:]
        assert one["ids"].tolist() == (target[: target.index(SEP)] if SEP in target else target)
    assert min(len(one["ids"]) for one in found) == 7


@pytest.mark.parametrize(("top_k", "top_p"), [(5, None), (None, 0.7), (8, 0.5), (1, None), (None, 0.01), (None, 1e-60)])
def test_sampling_draws_from_the_same_tokens(top_k: int | None, top_p: float | None) -> None:
    logits = torch.randn(50, 30) * 3
    settings = Decoding(sample=True, temperature=0.7, top_k=top_k, top_p=top_p)
    wanted = logits / 0.7
    if top_k is not None:
        wanted = TopKLogitsWarper(top_k)(None, wanted)  # type: ignore[arg-type]
    if top_p is not None:
        wanted = TopPLogitsWarper(top_p)(None, wanted)  # type: ignore[arg-type]
    found = restricted(logits, settings)
    torch.testing.assert_close(found, wanted)
    shares = found.softmax(-1)
    chances = torch.linspace(0, 1, 1001)[:-1] + 0.0005
    for row in range(3):  # each token as often as its probability says
        tokens = drawn(logits[row : row + 1].expand(1000, -1), settings, chances)
        often = torch.bincount(tokens, minlength=30) / 1000
        assert torch.all((often - shares[row]).abs() <= 0.002)
    assert torch.all(shares.gather(1, drawn(logits, settings, torch.ones(50))[:, None]) > 0)


def test_a_tied_matrix_that_differs_is_refused(tmp_path: Path) -> None:
    from bothways.errors import ModelError

    folder = save(ours_of(tied=False), tmp_path / "model")
    saved_task = json.loads((folder / "bothways.json").read_text())
    saved_task["generate"]["settings"]["tied"] = True
    (folder / "bothways.json").write_text(json.dumps(saved_task))
    with pytest.raises(ModelError, match=r"differs from its word embeddings.*tie_word_embeddings"):
        load(folder)
    assert "decoder.cls.predictions.decoder.weight" in safetensors.torch.load_file(folder / "model.safetensors")
