"""Generation: records, examples, where the decoder starts from, what is written, its alignment, and messages."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bothways.batch import pack
from bothways.data.records import read_records
from bothways.errors import BothwaysError, ConfigError, DataError, ModelError, Stopped
from bothways.infer import generation as writing
from bothways.infer.alignment import alignment_html, alignment_png, by_word
from bothways.infer.predictor import Predictor
from bothways.infer.prepared import prepare_writing
from bothways.models.model import Model, fresh, load, save, start_from
from bothways.nn.decoding_settings import Decoding, Writing
from bothways.nn.encoder import EncoderConfig
from bothways.nn.network import TEXT
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.encoder_decoder import weights_of_encoder
from bothways.tasks.generate import GenerateTask
from bothways.tasks.generate_settings import GenerateSettings
from bothways.tasks.multi import Part
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer
from bothways.train import finetuning
from bothways.train.run import finetune

GIVEN = [
    {"source": "我 吃", "target": "I eat"},
    {"source": "你 吃", "target": "you eat"},
    {"source": "我 看", "target": "I see"},
    {"source": "你 看", "target": "you see"},
    {"source": "他 看 我", "target": "he sees me"},
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Threads cost more than they give in so small a network."""
    torch.set_num_threads(1)


def task_of(**settings: Any) -> GenerateTask:
    return GenerateTask(GenerateSettings(**{"decoding": Decoding(max_length=20), **settings}))


# ------------------------------------------------------------------------------------------------------ examples


def test_a_labelled_record_is_taught(as_records: Any, tokenizer: Tokenizer) -> None:
    records = as_records([{"source": "我 ab", "target": ["你 c", "another"]}])
    (encoded,) = task_of().encode(records, tokenizer, max_length=16, labelled=True, first=7)
    (example,) = encoded.examples
    words = lambda ids: [tokenizer.token(number) for number in ids.tolist()]  # noqa: E731
    assert words(example.pieces[0].input_ids) == ["[CLS]", "我", "a", "##b", "[SEP]"]
    assert example.pieces[0].origin is not None
    assert example.pieces[0].origin.record == 7
    assert example.decoder is not None
    assert words(example.decoder.input_ids) == ["[CLS]", "你", "c"]
    read = example.reads[TEXT]
    assert read.labels is not None
    assert words(read.labels) == ["你", "c", "[SEP]"]
    assert (read.rows.tolist(), read.groups.tolist(), read.weight) == ([0, 1, 2], [3], 3.0)
    assert example.tokens == 5 + 3
    assert encoded.coverage.told() == {"kept": 3}


def test_what_is_too_long_is_refused_or_told(as_records: Any, tokenizer: Tokenizer) -> None:
    long_source = as_records([{"source": "我" * 30, "target": "ab"}])
    long_target = as_records([{"source": "我", "target": "我" * 30}])

    def encode(records: Any, long: str) -> Any:
        return task_of(long=long).encode(records, tokenizer, max_length=16, labelled=True)[0]

    with pytest.raises(DataError, match=r"<records>:1: the source has 30 tokens, the model reads 14 at once; shorten"):
        encode(long_source, "refuse")
    with pytest.raises(DataError, match=r"<records>:1: the target has 30 tokens, the model writes 15; shorten it, or"):
        encode(long_target, "refuse")
    first = encode(long_source, "first")
    assert first.coverage.told() == {"kept": 14, "dropped": 16}
    windows = encode(long_source, "windows")
    assert windows.coverage.dropped == 0
    assert windows.coverage.kept == 30
    assert len(windows.examples) == 1
    assert len(windows.examples[0].pieces) > 2
    cut = encode(long_target, "first")
    assert cut.coverage.told() == {"kept": 1, "dropped": 15}
    labels = cut.examples[0].reads[TEXT].labels
    assert tokenizer.sep_id not in labels.tolist()  # it does not end there
    assert len(cut.examples[0].decoder.input_ids) == len(labels) == 15


def test_a_decoder_with_fewer_positions_than_its_encoder(make_model: Any, as_records: Any, tmp_path: Path) -> None:
    """Its own number of them is the limit of targets; the encoder's is that of sources."""
    task = GenerateTask(GenerateSettings(decoding=Decoding(max_length=20)), shape={"max_position_embeddings": 8})
    folder = save(make_model(task), tmp_path / "model")
    for bothways_json in (True, False):
        if not bothways_json:
            (folder / "bothways.json").unlink()
        predictor = Predictor(load(folder), device="cpu")
        records = [{"source": "我" * 30, "target": "我" * 7}, {"source": "我", "target": "我" * 8}]
        assert predictor.evaluate(records[:1])["tokens_dropped"] == 0
        assert predictor.generate(["我" * 30], min_length=20)[0]["unfinished"] is True
        with pytest.raises(DataError, match=r":2: the target has 8 tokens, the model writes 7; shorten it, or say"):
            predictor.evaluate(records)
        scores = predictor.with_options(long="first").evaluate(records)
        assert scores["tokens_dropped"] == 1


def test_windows_of_a_long_source_are_read_together(make_model: Any) -> None:
    predictor = Predictor(make_model(task_of(long="windows"), positions=16), device="cpu")
    source = "我你他她它们是不在有这那人大天日月水火山"
    (one,) = predictor.generate([source], return_attention=True)
    assert one["tokens"]["kept"] == 20
    assert one["attention"].shape[3] > 22
    assert np.allclose(one["attention"].sum(-1), 1, atol=1e-5)
    changed = predictor.generate([source[:-1] + "听"], return_attention=True)[0]
    assert changed["score"] != one["score"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"source": " ", "target": "a"}, "the source is empty (nothing but blanks"),
        ({"source": "a", "target": "\t"}, "the target is empty (nothing but blanks"),
        ({"source": "a", "target": []}, '"target" is an empty list'),
        ({"source": "a", "target": 3}, "'target' is a whole number ('3'), wanted a string or a list of strings"),
        ({"source": "a"}, "no field 'target'; there are 'source'"),
        ({"target": "a"}, "no field 'source'; there are 'target'"),
    ],
)
def test_records_that_can_not_be(record: Any, message: str, as_records: Any, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError) as caught:
        task_of().encode(as_records([record]), tokenizer, max_length=16, labelled=True)
    assert message in str(caught.value)
    assert "<records>:1" in str(caught.value)


def test_language_is_that_of_the_targets(as_records: Any) -> None:
    chinese = as_records([{"source": "I see", "target": "我看到了OK"}])
    assert GenerateTask.learn(chinese, GenerateSettings()).language == "zh"
    assert GenerateTask.learn(as_records(GIVEN), GenerateSettings()).language == "other"
    assert GenerateTask.learn(as_records(GIVEN), GenerateSettings(language="zh")).language == "zh"


def test_loss_is_smoothed_cross_entropy_of_the_next_tokens(as_records: Any, make_model: Any) -> None:
    task = task_of(label_smoothing=0.2)
    model = make_model(task)
    encoded = task.encode(as_records(GIVEN), model.tokenizer, max_length=32, labelled=True)
    batch = pack([one.examples[0] for one in encoded])
    scores = model.network.eval()(batch)
    labels = batch.targets[TEXT].labels
    logs = scores[TEXT].log_softmax(-1)
    wanted = 0.8 * logs.gather(1, labels[:, None]).sum() + 0.2 * logs.mean(-1).sum()
    assert torch.allclose(task.losses(scores, batch)[TEXT], -wanted, rtol=1e-5)
    assert batch.targets[TEXT].weight == len(labels)


# ------------------------------------------------------------------------------------------ where it starts from


def pretrained(tokenizer: Tokenizer, make_model: Any, folder: Path) -> Path:
    return save(make_model(PretrainTask("next")), folder)


@pytest.mark.parametrize("settings", [{}, {"tied": False}, {"decoder_layers": 1}], ids=["tied", "untied", "shallow"])
def test_bert2bert(settings: Any, tokenizer: Tokenizer, make_model: Any, tmp_path: Path) -> None:
    folder = pretrained(tokenizer, make_model, tmp_path / "bert")
    network = start_from(folder, task_of(**settings)).network
    before = load(folder).network.state_dict()
    weights = network.state_dict()
    copied = [name for name in weights if name.startswith("decoder.body.")]
    assert len(copied) == 5 + 12 * settings.get("decoder_layers", 2)
    for name in copied:
        assert torch.equal(weights[name], before[name.replace("decoder.body.", "encoder.")])
        assert weights[name].data_ptr() != weights[name.replace("decoder.body.", "encoder.")].data_ptr()
    for name in ("dense.weight", "norm.bias", "bias"):
        assert torch.equal(weights[f"heads.text.{name}"], before[f"heads.masked.{name}"])
    if "tied" in settings:
        assert torch.equal(weights["heads.text.weight"], weights["decoder.body.embeddings.word.weight"])
    assert not torch.equal(weights["decoder.cross.0.query.weight"], weights["encoder.layers.0.attention.output.weight"])


def test_what_writes_is_not_computed_in_int8(tokenizer: Tokenizer, make_model: Any, tmp_path: Path) -> None:
    model = start_from(pretrained(tokenizer, make_model, tmp_path / "bert"), task_of())
    with pytest.raises(
        ConfigError, match="int8 is for an encoder's answers, and this model writes; try bfloat16 or auto"
    ):
        Predictor(model, device="cpu", precision="int8")


@pytest.mark.parametrize("decoder", ["copy", "share", "fresh"])
def test_cross_attention_starts_as_attention_to_itself(
    tokenizer: Tokenizer, make_model: Any, tmp_path: Path, decoder: str
) -> None:
    """In each layer, and its output softly; a fresh decoder's, or one that is asked for, is random."""
    folder = pretrained(tokenizer, make_model, tmp_path / "bert")
    names = {f"decoder.cross.{layer}.{part}.weight" for layer in (0, 1) for part in ("query", "key_value", "output")}
    assert names <= start_from(folder, task_of(decoder=decoder, cross="fresh")).drawn
    model = start_from(folder, task_of(decoder=decoder))
    weights = model.network.state_dict()
    if decoder == "fresh":
        assert names <= model.drawn
        return
    assert not any("cross" in name for name in model.drawn)
    for layer in (0, 1):
        own, cross = f"encoder.layers.{layer}.attention", f"decoder.cross.{layer}"
        for kind in ("weight", "bias"):
            both = torch.cat([weights[f"{cross}.query.{kind}"], weights[f"{cross}.key_value.{kind}"]])
            assert torch.equal(both, weights[f"{own}.qkv.{kind}"])
            assert torch.equal(weights[f"{cross}.output.{kind}"], 0.3 * weights[f"{own}.output.{kind}"])


def test_cross_attention_begins_by_leaving_vectors_as_they_are(make_model: Any) -> None:
    """Its norm is that of what the layer's own norm made: with nothing found, next to nothing changes."""
    torch.manual_seed(1)
    encoder = make_model(task_of()).network.encoder
    for layer in encoder.layers:
        torch.nn.init.normal_(layer.attention_norm.weight, 0.6, 0.1)
        torch.nn.init.normal_(layer.attention_norm.bias, 0.1, 0.2)
    state = {f"encoder.{name}": weight for name, weight in encoder.state_dict().items()}
    weights = weights_of_encoder(state, layers=len(encoder.layers), tied=True, cross=True)
    x = encoder.layers[1].attention_norm(torch.randn(50, encoder.config.hidden_size))
    norm = (weights[f"decoder.cross.1.norm.{kind}"] for kind in ("weight", "bias"))
    again = torch.nn.functional.layer_norm(x, x.shape[1:], *norm)
    assert float((again - x).detach().norm()) < 0.15 * float(x.detach().norm())


def test_shared_layers_are_counted_once_and_taught_from_both_sides(
    tokenizer: Tokenizer, make_model: Any, as_records: Any, tmp_path: Path
) -> None:
    folder = pretrained(tokenizer, make_model, tmp_path / "bert")
    task = task_of(decoder="share")
    shared, copied = start_from(folder, task), start_from(folder, task_of())
    assert shared.parameters < copied.parameters
    assert not any(name.startswith("decoder.body.") for name in shared.network.state_dict())
    encoded = task.encode(as_records(GIVEN), tokenizer, max_length=32, labelled=True)
    batch = pack([one.examples[0] for one in encoded])
    fresh_ones = shared.network.state_dict()  # cross-attention and head, drawn anew for each
    assert not copied.network.load_state_dict(fresh_ones, strict=False).unexpected_keys
    for model in (shared, copied):
        model.network.eval()
        task.losses(model.network(batch), batch)[TEXT].backward()
    first = "encoder.layers.0.mlp.up.weight"
    both = dict(shared.network.named_parameters())[first].grad
    one = dict(copied.network.named_parameters())
    sides = one[first].grad, one[first.replace("encoder.", "decoder.body.")].grad
    assert both is not None
    assert sides[0] is not None
    assert sides[1] is not None
    torch.testing.assert_close(both, sides[0] + sides[1])
    assert min(float(side.norm() / both.norm()) for side in sides) > 0.05


def test_a_fresh_decoder_is_not_the_encoder(tokenizer: Tokenizer, make_model: Any, tmp_path: Path) -> None:
    model = start_from(pretrained(tokenizer, make_model, tmp_path / "bert"), task_of(decoder="fresh"))
    weights = model.network.state_dict()
    name = "decoder.body.layers.0.mlp.up.weight"
    assert not torch.equal(weights[name], weights[name.replace("decoder.body.", "encoder.")])
    assert "starts from random" in " ".join(model.told)


def test_an_encoder_decoder_goes_on_as_it_is(make_model: Any, tmp_path: Path) -> None:
    first = make_model(task_of())
    again = start_from(save(first, tmp_path / "model"), GenerateTask(GenerateSettings()))
    assert again.told == ["as the model that it begins from: max_length 20"]
    for name, weight in first.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], weight)
    other = start_from(tmp_path / "model", ClassifyTask(ClassifySettings(), "one", ["a", "b"]))
    assert other.network.decoder is None
    assert any(line.startswith("left out: decoder.") for line in other.told)


def same_weights(one: Model, other: Model) -> bool:
    ours, theirs = one.network.state_dict(), other.network.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_writer_goes_on_as_the_writer_that_it_was(make_model: Any, tmp_path: Path) -> None:
    odd = GenerateTask(
        GenerateSettings(tied=False, long="windows", decoding=Decoding(beams=3, max_length=9, forbidden=["我"])),
        "zh",
        shape={"num_hidden_layers": 1, "num_attention_heads": 4},
        start=6,
        end=7,
        forbidden=[(8,), (9, 10)],
    )
    before = make_model(odd)
    folder = save(before, tmp_path / "odd")
    again = start_from(folder, GenerateTask(GenerateSettings(), "other"))
    assert again.told == [
        "as the model that it begins from: long windows, tied False, beams 3, max_length 9, forbidden ['我']"
    ]
    assert again.drawn == frozenset()
    assert same_weights(before, again)
    source = [{"source": "我 吃 ab"}]
    assert Predictor(again, device="cpu").predict(source) == Predictor(before, device="cpu").predict(source)
    assert again.task is not None
    assert again.task.to_dict() == odd.to_dict() | {
        "language": "other", "settings": odd.to_dict()["settings"] | {"decoder": "copy"}
    }  # fmt: skip

    said = GenerateSettings(decoding=Decoding(max_length=5), long="first")
    anew = start_from(folder, GenerateTask(said)).task
    assert isinstance(anew, GenerateTask)
    assert (anew.settings.long, anew.settings.decoding) == ("first", Decoding(beams=3, max_length=5, forbidden=["我"]))


def test_what_agrees_with_what_is_said_is_kept(make_model: Any, tmp_path: Path) -> None:
    """Beams against sampling, a greatest length against a least: what is said counts, here and in further learning."""
    draws = Decoding(sample=True, temperature=0.5, top_k=3, min_length=6, no_repeat_ngram=2)
    folder = save(make_model(task_of(decoding=draws)), tmp_path / "draws")
    drawing = GenerateTask(GenerateSettings(decoding=draws))
    for said, kept in [
        ({"beams": 4}, {"min_length": 6}),
        ({"max_length": 5}, {"sample": True, "temperature": 0.5, "top_k": 3}),
        ({"beams": 4, "max_length": 5}, {}),
    ]:
        wanted = Decoding(**said, **kept, no_repeat_ngram=2)
        further = start_from(folder, GenerateTask(GenerateSettings(decoding=Decoding(**said)))).task
        assert isinstance(further, GenerateTask)
        assert further.settings.decoding == wanted
        assert drawing.with_options(**said).settings.decoding == wanted
    plain = drawing.with_options(sample=False, forbidden="none").settings.decoding
    assert plain == Decoding(min_length=6, no_repeat_ngram=2)
    beams = GenerateTask(GenerateSettings(decoding=Decoding(beams=4, forbidden=["a"])))
    assert beams.with_options(sample="true", top_k="2").settings.decoding == Decoding(
        sample=True, top_k=2, forbidden=["a"]
    )
    assert beams.with_options(forbidden=None).settings.decoding == Decoding(beams=4)
    assert beams.with_options(forbidden="none,").settings.decoding.forbidden == ["none"]
    with pytest.raises(ConfigError, match="beams is 2 and sample is on"):
        beams.with_options(sample=True, beams=2)


def test_another_decoder_than_the_one_that_has_learnt(make_model: Any, tmp_path: Path) -> None:
    copied, shared = (save(make_model(task_of(decoder=how)), tmp_path / how) for how in ("copy", "share"))
    anew = start_from(copied, task_of(decoder="fresh", decoder_layers=1))
    assert "the decoder that it had is left out, for a fresh one" in anew.told
    assert {"decoder.cross.0.query.weight", "decoder.body.embeddings.word.weight", "heads.text.bias"} <= anew.drawn
    assert anew.network.decoder is not None
    assert len(anew.network.decoder.body.layers) == 1
    for settings, message in (
        ({"decoder": "share"}, "decoder is share, but the model that it begins from has learnt a decoder of its own"),
        ({"decoder_layers": 1}, "decoder_layers is 1, but the model that it begins from has learnt a decoder of as ma"),
    ):
        with pytest.raises(ConfigError, match=message):
            start_from(copied, task_of(**settings))
    kept = start_from(shared, task_of())
    assert kept.task is not None
    assert kept.task.to_dict()["settings"]["decoder"] == "share"
    assert same_weights(kept, load(shared))
    own = start_from(shared, task_of(decoder="copy"))
    assert "its decoder was its encoder, and becomes a copy of it" in own.told
    assert own.parameters > kept.parameters
    untied = start_from(copied, task_of(tied=False))
    weights = untied.network.state_dict()
    assert torch.equal(weights["heads.text.weight"], weights["decoder.body.embeddings.word.weight"])


# --------------------------------------------------------------------------------------------- learning, writing


@pytest.fixture(scope="module")
def translator(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Predictor]:
    """A model that has learnt GIVEN, read from its folder."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = EncoderConfig(
        vocab_size=tokenizer.size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    task = task_of(language="other", label_smoothing=0.0)
    model = fresh(config, tokenizer, task)
    encoded = task.encode([*read_records(GIVEN)], tokenizer, max_length=32, labelled=True)
    batch = pack([one.examples[0] for one in encoded])
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=5e-3)
    model.network.train()
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 200)
        (task.losses(model.network(batch), batch)[TEXT] / batch.targets[TEXT].weight).backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = save(model, tmp_path_factory.mktemp("translator") / "model")
    return lambda: Predictor(load(folder), device="cpu")


def test_it_learns_to_translate(translator: Any) -> None:
    predictor = translator()
    for beams in (1, 3):
        texts = [one["text"] for one in predictor.generate([one["source"] for one in GIVEN], beams=beams)]
        assert texts == [one["target"] for one in GIVEN]
    scores = predictor.evaluate(GIVEN)
    assert scores["chrf"] == pytest.approx(100.0)
    assert scores["rougeL"] == pytest.approx(1.0)
    assert scores["unfinished"] == 0
    assert 1.0 < scores["perplexity"] < 1.5
    assert math.exp(-scores["log_likelihood"]) == pytest.approx(scores["perplexity"])
    assert "tok:13a" in scores["signatures"]["bleu"]
    assert scores["records"] == 5
    assert predictor.evaluate([{"source": "我 吃", "target": "x y z w"}])["chrf"] < 10


@pytest.mark.parametrize(("criterion", "epochs"), [("chrf", 2), ("rougeL", 4)])
def test_the_criterion_chooses_the_epoch_and_when_to_stop(
    criterion: Any, epochs: int, make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chrF falls from epoch to epoch and ROUGE rises, whatever is written; BLEU, the default, says nothing."""
    seen: list[Any] = []

    def metrics(self: GenerateTask, records: Any, predictions: Any) -> dict[str, Any]:
        seen.append(predictions)
        return {"bleu": 1.0, "chrf": -float(len(seen)), "rougeL": float(len(seen))}

    monkeypatch.setattr(GenerateTask, "metrics", metrics)
    # Where auto answers in bfloat16, dev is written once more in it.
    monkeypatch.setattr(finetuning, "pick_answer_precision", lambda *_: "float32")
    start = save(make_model(PretrainTask("next")), tmp_path / "bert")
    task = {"criterion": criterion, "decoding": {"max_length": 4}}
    more: dict[str, Any] = {"epochs": 4, "patience": 1, "generate": task, "optim": {"lr": 1e-2}}
    run = finetune("generate", model=start, train=GIVEN, dev=GIVEN, out=tmp_path / "run", **more)
    entries = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if "dev" in entry] == [*range(1, epochs + 1)]
    best = 0 if criterion == "chrf" else epochs - 1
    assert seen[-1] == seen[best], "the finished model is that of the best epoch"
    assert seen[-1] != seen[epochs - 1 - best]


def test_special_tokens_are_never_written(translator: Any) -> None:
    """However likely: whoever was taught by targets with unknown characters would else write [UNK] for them."""
    predictor = translator()
    tokenizer, bias = predictor.model.tokenizer, predictor.model.network.head(TEXT).bias
    special = [tokenizer.unk_id, tokenizer.pad_id, tokenizer.cls_id, tokenizer.mask_id]
    with torch.no_grad():
        bias[special] += 1000.0
    try:
        texts = [one["text"] for one in predictor.generate([one["source"] for one in GIVEN])]
    finally:
        with torch.no_grad():
            bias[special] -= 1000.0
    assert texts == [one["target"] for one in GIVEN]


@pytest.mark.parametrize("options", [{}, {"sample": True}, {"beams": 3}], ids=["greedy", "sampling", "beams"])
def test_what_lies_beyond_the_tokenizer_is_never_written(options: Any, tokenizer: Tokenizer) -> None:
    """A vocabulary may be padded to a round number: no piece stands there, however likely its number is."""
    config = EncoderConfig(
        vocab_size=tokenizer.size + 32,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    model = fresh(config, tokenizer, task_of(decoding=Decoding(max_length=8)))
    with torch.no_grad():
        model.network.head(TEXT).bias[tokenizer.size :] += 100.0
    (one,) = Predictor(model, device="cpu").generate(["我 吃"], return_attention=True, **options)
    assert 0 < len(one["target_tokens"]) <= 8
    if "beams" not in options:
        assert one["text"] == "".join(Predictor(model, device="cpu").generate_stream("我 吃", **options))


def test_an_end_beyond_the_tokenizer_is_refused(tokenizer: Tokenizer) -> None:
    """Nothing that is written could be it, so that no text would end."""
    end = tokenizer.size + 3
    with pytest.raises(ModelError, match=rf"a text is to end with id {end}, .* tokenizer has {tokenizer.size} pieces"):
        GenerateTask(GenerateSettings(), end=end).writing(tokenizer)


def test_what_is_prepared_for_writing_follows_the_weights(translator: Any) -> None:
    """The product with the vocabulary is laid out once, and anew when a weight changed, the decoder's too."""
    predictor = translator()
    network, engine = predictor.model.network, predictor.engine
    sources = [one["source"] for one in GIVEN]
    before = predictor.generate(sources)
    prepared = engine.ready_to_write()
    assert engine.ready_to_write() is prepared
    words = network.writer.embeddings.word.weight
    kept = words.detach().clone()
    try:
        with torch.no_grad():
            words.mul_(-1)
        assert engine.ready_to_write() is not prepared
        assert predictor.generate(sources) != before
    finally:
        with torch.no_grad():
            words.copy_(kept)
    assert predictor.generate(sources) == before


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 13, 40])
def test_prepared_logits_are_the_same(translator: Any, rows: int) -> None:
    network = translator().model.network
    x = torch.randn(rows, network.writer.config.hidden_size)
    with torch.inference_mode():
        wanted = network.head(TEXT).logits(x)
        found = prepare_writing(network, "float32").head(TEXT).logits(x)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("decoder", ["copy", "share"])
def test_what_is_prepared_writes_the_same(make_model: Any, tokenizer: Tokenizer, as_records: Any, decoder: str) -> None:
    network, task = make_model(task_of(decoder=decoder)).network.eval(), task_of(decoder=decoder)
    prepared = prepare_writing(network, "float32")
    for beams in (1, 3):
        examples = [
            one.examples[0]
            for one in task.with_options(beams=beams).encode(as_records(GIVEN), tokenizer, max_length=32, labelled=True)
        ]
        with torch.inference_mode():
            wanted, found = (writing.written(one, examples, torch.device("cpu")) for one in (network, prepared))
        for one, other in zip(wanted, found, strict=True):
            assert one["ids"].tolist() == other["ids"].tolist()
            np.testing.assert_allclose(one["score"], other["score"], atol=1e-5)
            np.testing.assert_allclose(one["gold"], other["gold"], atol=1e-4)


def test_predict_takes_texts_and_records_and_options(translator: Any) -> None:
    predictor = translator()
    assert [one["text"] for one in predictor.predict(["我 吃", {"source": "你 看"}, {"text": "你 看"}])] == [
        "I eat",
        "you see",
        "you see",
    ]
    (cut,) = predictor.predict(["他 看 我"], max_length=2)
    assert cut["unfinished"] is True
    assert "I" not in predictor.generate(["我 吃"], forbidden=["I"])[0]["text"].split()
    strings = predictor.with_options(
        **{"beams": "3", "max-length": "7", "early-stopping": "yes", "forbidden": "I,ab c"}
    )
    settings = strings.model.task.settings.decoding
    assert (settings.beams, settings.max_length, settings.early_stopping) == (3, 7, "yes")
    assert settings.forbidden == ["I", "ab c"]
    assert predictor.model.task.settings.decoding.beams == 1


def test_the_stream_is_the_text(translator: Any) -> None:
    predictor = translator()
    for record in GIVEN:
        pieces = [*predictor.generate_stream(record["source"])]
        assert "".join(pieces) == record["target"]
        assert len(pieces) > 1
    sampled = {"sample": True, "temperature": 3.0, "seed": 4}
    text = predictor.generate(["我 吃"], **sampled)[0]["text"]
    assert "".join(predictor.generate_stream("我 吃", **sampled)) == text
    whole = predictor.generate_stream("我 吃")
    assert not (list(whole) and whole.unfinished)
    cut = predictor.generate_stream("我 吃", max_length=2)
    assert "".join(cut) == predictor.generate(["我 吃"], max_length=2)[0]["text"]
    assert cut.unfinished
    with pytest.raises(ConfigError, match="beams is 2; a stream needs beams 1"):
        predictor.generate_stream("我 吃", beams=2)


def test_the_stream_is_the_text_whatever_follows_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later piece may take spaces away that stood before earlier ones: in 1,000, in it's, beside Chinese."""
    marks, pieces = "'\".,()-$%?你。“（’ーＡ１", "3 12 000 ##0 ##00 0 a o u t s l ll well ##l ##s ##- ##' not do ##好"
    entries = [*marks, *pieces.split()]
    tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *entries])
    draw = np.random.default_rng(4)
    digits = [*map(tokenizer.id, ["12", ",", "0", "##0", "##0", "##0"])]  # 12,00 is no thousand before it is one
    for number in range(3000):
        ids = draw.integers(4, tokenizer.size, draw.integers(1, 10)).tolist()
        ids = [*digits[: 2 + number % 5], *ids] if number % 2 else ids
        monkeypatch.setattr(writing, "_tokens", lambda *_, ids=ids: iter(ids))
        nothing: Any = None
        example: Any = SimpleNamespace(decoding=Writing(Decoding(), start=2, end=3))
        pieces = [*writing.stream(nothing, example, tokenizer, nothing, contextlib.nullcontext)]
        assert "".join(pieces) == tokenizer.decode(ids), [tokenizer.token(id_) for id_ in ids]


def test_the_stream_does_not_wait_for_the_end(translator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece is there when the token after it is: the first one after two steps, of a text of many."""
    predictor = translator()
    network, steps = predictor.model.network, []
    inner = network.next_logits
    monkeypatch.setattr(network, "next_logits", lambda ids, cache: steps.append(len(ids)) or inner(ids, cache))
    pieces = predictor.generate_stream("他 看 我")
    assert steps == []
    taken = [(piece, len(steps)) for piece in pieces]
    assert "".join(piece for piece, _ in taken) == "he sees me"
    assert taken[0] == ("he", 3)
    assert [at for _, at in taken] == sorted({at for _, at in taken})
    assert len(steps) == 9, "eight letters and the end"


def test_writing_can_be_stopped(translator: Any) -> None:
    """By a function that is asked before each step; it's no option of decoding, so words can't be it."""
    predictor = translator()
    asked: list[bool] = []

    def after(steps: int) -> Callable[[], bool]:
        return lambda: asked.append(True) or len(asked) > steps

    with pytest.raises(Stopped, match="writing was stopped after 2 of at most 20 tokens"):
        predictor.generate(["我 吃"], stop=after(2))
    assert len(asked) == 3
    asked.clear()
    pieces = predictor.generate_stream("他 看 我", stop=after(3))
    assert asked == []
    assert next(pieces) == "he"
    with pytest.raises(Stopped, match="writing was stopped after 3 of at most 20 tokens"):
        next(pieces)
    assert predictor.generate(["我 吃"], stop=lambda: False) == predictor.generate(["我 吃"])
    for begin in (predictor.generate, predictor.generate_stream):
        with pytest.raises(ConfigError, match="stop is a whole number; wanted a function that says whether"):
            begin("我 吃", stop=3)


def test_attention_is_of_one_and_the_same_source(translator: Any) -> None:
    """A [MASK] in a source is text to a writer, in both of its pictures."""
    found = translator().attention("我 [MASK] 吃")
    assert found["tokens"] == found["cross"]["keys"]


def test_attention_of_a_text_that_is_too_long(translator: Any) -> None:
    """As much of it is read as the model has room for, for what is written too; what is left out is told."""
    predictor = translator()
    for long in ("refuse", "windows"):
        shown = predictor.with_options(long=long).attention("我" * 50)
        assert shown["dropped"] == 20
        assert shown["cross"]["keys"] == shown["tokens"]
        assert len(shown["tokens"]) == 32


def test_alignment_and_content(translator: Any) -> None:
    predictor = translator()
    one, two = predictor.generate(["我 吃", "他 看 我"], return_attention=True, return_content=True, beams=2)
    assert one["source_tokens"] == ["[CLS]", "我", "吃", "[SEP]"]
    assert one["target_tokens"] == ["I", "e", "##a", "##t", "[SEP]"]
    assert one["attention"].shape == (1, 2, 5, 4)
    assert one["content"].shape == (1, 5, 32)
    assert np.allclose(one["attention"].sum(-1), 1.0, atol=1e-6)
    assert two["attention"].shape[3] == 5
    # C is α times the values
    network = predictor.model.network
    (encoded,) = predictor.encode([*read_records([{"source": "我 吃"}])])
    batch = pack(encoded.examples)
    with torch.no_grad():
        _, values = network.decoder.cross[0].keys_values(network.encoder(batch.tokens))
    wanted = np.einsum("hts,shk->thk", one["attention"][0], values.numpy()).reshape(5, 32)
    assert np.allclose(one["content"][0], wanted, atol=1e-5)
    assert "attention" not in predictor.generate(["我 吃"])[0]


def test_pictures(translator: Any, tmp_path: Path) -> None:
    predictor = translator()
    weights, target, source = by_word(
        np.array([[0.1, 0.2, 0.7], [0.3, 0.5, 0.2], [0.5, 0.5, 0.0]]), ["a", "##b", "c"], ["x", "y", "##z"]
    )
    assert (target, source) == (["ab", "c"], ["x", "yz"])
    assert np.allclose(weights, [[0.2, 0.8], [0.5, 0.5]])
    found = predictor.generate(["我 吃", "a<b"], return_attention=True)
    page = alignment_html(found)
    assert "我" in page
    assert "eat" in page
    assert "<th>&lt;</th>" in page
    assert "http" not in page  # self-contained
    assert page.count("<table>") == 2 * len(found)
    latin = predictor.generate(["a b"], return_attention=True)[0]
    alignment_png(latin | {"text": "x"}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"no font on this machine has all of the characters \(such as .*\.html"):
        alignment_png(latin | {"source_tokens": ["\U0010fffd"] * len(latin["source_tokens"])}, tmp_path / "b.png")
    long = predictor.generate(["a b " * 100], return_attention=True, long="windows")[0]
    with pytest.raises(ConfigError, match=r"there are 2\d\d words to draw, and a \.png has room for 160 on a side"):
        alignment_png(long, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
    _, _, windows = by_word(np.full((1, 5), 0.2), ["a"], ["[CLS]", "x", "[SEP]", "[CLS]", "##y"])
    assert windows == ["[CLS]", "x", "[SEP]", "[CLS]", "##y"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams is 0; it must be at least 1"),
        ({"beams": "four"}, "beams"),
        ({"beam": 4}, "generate takes no option 'beam'; known are beams, early_stopping"),
        ({"top_p": 2.0, "sample": True}, "top_p is 2.0"),
        ({"forbidden": [" "]}, "forbidden has ' ', which is nothing but blanks"),
        ({"long": "middle"}, "long"),
    ],
)
def test_options_that_can_not_be(options: Any, message: str, translator: Any) -> None:
    with pytest.raises(BothwaysError) as caught:
        translator().generate(["我"], **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_that_can_not_be(translator: Any, make_model: Any) -> None:
    predictor = translator()
    with pytest.raises(DataError, match="<records>:2: the source is empty"):
        predictor.generate(["我", ""])
    with pytest.raises(
        DataError, match=r"<records>:1: the source has 50 tokens, the model reads 30 at once; .* windows"
    ):
        predictor.generate("我" * 50)
    assert predictor.generate("我" * 50, long="first")[0]["tokens"] == {"kept": 30, "dropped": 20}
    assert predictor.generate("我" * 50, long="windows")[0]["tokens"]["kept"] == 50
    classifier = Predictor(make_model(ClassifyTask(ClassifySettings(), "one", ["a", "b"])), device="cpu")
    with pytest.raises(ModelError, match="this model does not generate text; fine-tune one that does"):
        classifier.generate(["我"])
    with pytest.raises(ConfigError, match="generate has a decoder of its own, so it can't share an encoder"):
        Part("generate")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder_layers": 0}, "decoder_layers is 0"),
        ({"decoder": "share", "decoder_layers": 1}, "decoder_layers can't be chosen for decoder share"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
    ],
)
def test_settings_that_can_not_be(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GenerateSettings(**settings)


# ------------------------------------------------------------------------------------------------ damaged folders


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["decoder"].update(hidden_size=64), "same hidden_size and vocab_size"),
        (lambda raw: raw.update(decoder=3), "decoder is 3; it must be an object in braces"),
        (lambda raw: raw["decoder"].update(model_type="gpt2"), "model_type is 'gpt2'"),
        (lambda raw: raw["encoder"].update(is_decoder=True), "is_decoder is set"),
        (lambda raw: raw["decoder"].update(num_hidden_layers=3), "decoder.bert.encoder.layer.2"),
    ],
)
def test_damaged_config(change: Any, message: str, make_model: Any, tmp_path: Path) -> None:
    folder = save(make_model(task_of()), tmp_path / "model")
    (folder / "bothways.json").unlink()  # as transformers would have saved it
    raw = json.loads((folder / "config.json").read_text())
    change(raw)
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"start": 10**7}, "start is '10000000'; wanted an id from 0 to "),
        ({"end": -1}, "end is '-1'; wanted an id from 0 up"),
        ({"end": True}, "end is 'True'; wanted an id from 0 up"),
        ({"start": "[CLS]"}, "start is '[CLS]'; wanted an id from 0 up"),
        ({"forbidden": [[5], [10**7]]}, "forbidden is '[[5], [10000000]]'; wanted lists of ids from 0 to "),
        ({"forbidden": [[]]}, "forbidden is '[[]]'; wanted lists of ids from 0 up, none empty"),
        ({"forbidden": [5]}, "forbidden is '[5]'; wanted lists of ids"),
        ({"forbidden": "abc"}, "forbidden is 'abc'; wanted lists of ids"),
    ],
)
def test_ids_that_the_vocabulary_does_not_have(ids: Any, message: str, make_model: Any, tmp_path: Path) -> None:
    folder = save(make_model(task_of()), tmp_path / "model")
    raw = json.loads((folder / "bothways.json").read_text())
    raw["generate"] |= ids
    (folder / "bothways.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "bothways.json" in str(caught.value)
    assert message in str(caught.value)
    assert str(caught.value).endswith("; save the model again")


@pytest.fixture
def theirs(make_model: Any, tmp_path: Path) -> Callable[..., Path]:
    """The folder of a model as transformers would have saved it, with these settings in a file of theirs."""

    def make(generation: dict[str, Any], file: str = "generation_config.json") -> Path:
        folder = save(make_model(task_of()), tmp_path / "theirs")
        (folder / "bothways.json").unlink()
        (folder / "generation_config.json").unlink()
        raw = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        (folder / file).write_text(json.dumps(raw | generation))
        return folder

    return make


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"num_beams": 0}, "beams is 0; it must be at least 1"),
        ({"max_length": "20"}, "max_length is '20'; wanted a whole number"),
        ({"early_stopping": "soon"}, "early_stopping is 'soon'; wanted one of no, yes, never"),
        ({"bad_words_ids": "ab"}, "bad_words_ids is 'ab'; wanted lists of ids from 0 to "),
        ({"bad_words_ids": [[5], []]}, "bad_words_ids is '[[5], []]'; wanted lists of ids from 0 to "),
        ({"bad_words_ids": [[5, 10**6]]}, "bad_words_ids is '[[5, 1000000]]'; wanted lists of ids from 0 to "),
        ({"decoder_start_token_id": 10**7}, "decoder_start_token_id is '10000000'; wanted an id from 0 to "),
        ({"decoder_start_token_id": [-1]}, "decoder_start_token_id is '-1'; wanted an id from 0 to "),
        ({"eos_token_id": 10**7}, "eos_token_id is '10000000'; wanted an id from 0 to "),
    ],
)
def test_generation_settings_that_can_not_be(generation: Any, message: str, theirs: Any) -> None:
    folder = theirs(generation)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{folder}: generation_config.json: {message}")


def test_a_text_begins_with_bos_where_nothing_else_is_said(theirs: Any) -> None:
    folder = theirs({"bos_token_id": 5})
    for file in ("config.json", "generation_config.json"):
        raw = json.loads((folder / file).read_text())
        for part in (raw, raw.get("decoder", {}), raw.get("encoder", {})):
            part.pop("decoder_start_token_id", None)
        (folder / file).write_text(json.dumps(raw))
    model = load(folder)
    assert isinstance(model.task, GenerateTask)
    assert model.task.writing(model.tokenizer).start == 5


def test_a_shared_decoder_that_was_trained_apart_is_refused(make_model: Any, tmp_path: Path) -> None:
    folder = save(make_model(task_of(decoder="share")), tmp_path / "shared")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.startswith("decoder.") and name.endswith("layer.0.output.dense.bias"))
    save_file(weights | {name: weights[name] + 1}, folder / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"bias differs from the encoder's, though bothways\.json says that the decoder"
    ):
        load(folder)


def test_an_id_of_config_json_that_can_not_be(theirs: Any) -> None:
    folder = theirs({"decoder_start_token_id": 10**7}, "config.json")
    with pytest.raises(ModelError) as caught:
        load(folder)
    wanted = f"{folder}: config.json: decoder_start_token_id is '10000000'; wanted an id from 0 to "
    assert str(caught.value).startswith(wanted)


def test_settings_of_a_folder_that_say_it_in_another_way(theirs: Any, tmp_path: Path) -> None:
    words = [[5], [6, 7], [3], [0]]
    folder = theirs({"bad_words_ids": words, "min_length": 4, "max_length": 9, "eos_token_id": [3]})
    for model in (load(folder), load(save(load(folder), tmp_path / "again"))):
        assert model.told == []
        assert isinstance(model.task, GenerateTask)
        decoding = model.task.settings.decoding
        assert (decoding.min_length, decoding.max_length) == (3, 8), "without the start token"
        writing = model.task.writing(model.tokenizer)
        assert writing.end == 3
        assert writing.forbidden == ((5,), (6, 7), (0,), (1,), (2,), (4,)), "each once, and not the end"


def test_a_config_from_before_there_was_a_file_for_it(theirs: Any) -> None:
    model = load(theirs({"num_beams": 4, "min_length": 3, "repetition_penalty": 2.0}, "config.json"))
    assert isinstance(model.task, GenerateTask)
    assert model.task.settings.decoding == Decoding(beams=4, min_length=2)
    assert model.told == ["config.json: 'repetition_penalty' is left out: there is nothing like it here, found 2.0"]


def test_settings_that_are_not_followed_are_told(theirs: Any, caplog: pytest.LogCaptureFixture) -> None:
    odd = {"repetition_penalty": 1.2, "eos_token_id": [3, 5], "a\nb": {"c": 1}}
    drawn = {"do_sample": True, "num_beams": 4, "temperature": 0.7, "top_p": 0.5}
    off = {"num_beam_groups": 1, "diversity_penalty": 0.0, "suppress_tokens": [], "forced_eos_token_id": None}
    beside = {"use_cache": False, "transformers_version": "5.0", "_from_model_config": True, "output_scores": True}
    folder = theirs(odd | drawn | off | beside)
    model = load(folder)
    assert isinstance(model.task, GenerateTask)
    assert model.task.settings.decoding == Decoding(beams=4)
    assert [line.removeprefix("generation_config.json: ") for line in model.told] == [
        "do_sample is left out: num_beams is 4, and here beams are not drawn",
        "eos_token_id is left out: a text ends with one token here, found [3, 5]",
        "'repetition_penalty' is left out: there is nothing like it here, found 1.2",
        "'a\\nb' is left out: there is nothing like it here, found {'c': 1}",
    ]
    assert [record.getMessage() for record in caplog.records] == [f"bothways: {folder}: {line}" for line in model.told]


def test_drawing_is_among_as_many_tokens_as_theirs(theirs: Any, make_model: Any, tmp_path: Path) -> None:
    """Where their file names no number they draw from the 50 likeliest, and from all where it is 0."""
    for number, (generation, wanted) in enumerate((({}, 50), ({"top_k": 0}, None), ({"top_k": 7}, 7))):
        shutil.rmtree(tmp_path / "theirs", ignore_errors=True)
        task = load(theirs({"do_sample": True} | generation)).task
        assert isinstance(task, GenerateTask)
        assert task.settings.decoding.top_k == wanted
        ours = save(make_model(task_of(decoding=task.settings.decoding)), tmp_path / f"ours-{number}")
        assert json.loads((ours / "generation_config.json").read_text())["top_k"] == (wanted or 0)


def test_a_saved_model_says_what_it_is(make_model: Any, tmp_path: Path) -> None:
    task = GenerateTask(GenerateSettings(long="first", decoding=Decoding(beams=2, forbidden=["a"])), "zh")
    model: Model = make_model(task)
    loaded = load(save(model, tmp_path / "model"))
    assert isinstance(loaded.task, GenerateTask)
    assert loaded.task.settings == task.settings
    assert loaded.task.language == "zh"
    raw = json.loads((tmp_path / "model" / "config.json").read_text())
    assert raw["decoder"]["is_decoder"] is True
    assert raw["encoder"].get("is_decoder") is not True


def test_where_a_folder_says_no_language_the_references_do(translator: Any, as_records: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(translator().model.folder, tmp_path / "theirs")
    (folder / "bothways.json").unlink()  # as transformers would have saved it
    task = load(folder).task
    assert task is not None
    for target, bleu, rouge in (("我看你", "tok:zh", "characters"), ("I see you", "tok:13a", "words")):
        scores = task.metrics(as_records([{"source": "a", "target": [target, "x"]}]), [{"text": target}])
        assert bleu in scores["signatures"]["bleu"]
        assert rouge in scores["signatures"]["rouge"]
        assert scores["rougeL"] == 1.0
    again = load(save(load(folder), tmp_path / "again")).task
    assert again is not None
    assert again.to_dict()["language"] is None
