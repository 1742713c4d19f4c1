"""Learning vectors: losses against sentence-transformers and by hand, cached gradients, records of each kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bothways.batch import pack
from bothways.errors import DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import load, save, start_from
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.embed import HEAD, EmbedSettings, EmbedTask
from bothways.tasks.embed_loss import contrast, cosent, distillation, step_loss
from bothways.tasks.embed_metrics import embed_metrics
from bothways.tasks.multi import MultiTask

PAIRS = [{"text_a": "a b c", "text_b": "d e"}, {"text_a": "f", "text_b": "g h"}, {"text_a": "i j", "text_b": "k l m"}]
GRADED = [row | {"label": grade} for row, grade in zip(PAIRS, (4.5, 0.0, 2), strict=True)]
TEXTS = [{"text": "a b c"}, {"text": "d e"}, {"text": "f g h i"}]
TRIPLETS = [row | {"negative": other} for row, other in zip(PAIRS, ("x", ["y z", "w"], "q"), strict=True)]
TEACHER = [row | {"vector": np.random.default_rng(n).normal(size=32).tolist()} for n, row in enumerate(TEXTS)]
NARROW = [row | {"vector": row["vector"][:5]} for row in TEACHER]
TRANSLATED = [row | {"translation": other} for row, other in zip(TEACHER, ("x", ["y z", "w"], None), strict=True)]
KINDS = {"pairs": PAIRS, "triplets": TRIPLETS, "graded": GRADED, "texts": TEXTS, "teacher": TEACHER, "narrow": NARROW}
KINDS["translated"] = TRANSLATED


def made(make_model, as_records, rows, settings=None, dropout=0.0):
    """A model for these records, and their examples."""
    records = as_records(rows)
    task = EmbedTask.learn(records, settings or EmbedSettings())
    model = make_model(task, dropout=dropout)
    encoded = task.encode(records, model.tokenizer, max_length=32, labelled=True)
    return model, task, [example for one in encoded for example in one.examples]


# ------------------------------------------------------------------------------------------ what it begins from


def before(make_model, folder, **settings):
    """A saved model of vectors, and one to go on from it."""
    task = EmbedTask(EmbedSettings(**settings), prompts={"query": "find ", "usual": "a "}, prompt="a ")
    return save(make_model(task), folder)


def test_a_model_of_vectors_goes_on_as_it_was(make_model, tmp_path):
    start = before(make_model, tmp_path / "start", pooling="cls", max_length=12)
    again = start_from(start, EmbedTask(EmbedSettings(), kind="pairs"))
    assert again.task.settings == EmbedSettings(pooling="cls", max_length=12)
    assert (again.task.kind, again.task.prompts["query"], again.task.prompt) == ("pairs", "find ", "a ")
    told = "as the model that it begins from: pooling cls, max_length 12, the prompts query, usual"
    assert again.told == [f"{told} ('find ' before the first text of a pair, 'a ' before the others in training)"]
    assert load(save(again, tmp_path / "again")).task.to_dict() == again.task.to_dict()
    graded = start_from(start, EmbedTask(EmbedSettings(), kind="graded"))
    assert graded.told == [f"{told} ('a ' before each text in training)"]
    settled = graded.task.settled(EmbedSettings(scale=3.0))
    assert settled == EmbedSettings(pooling="cls", max_length=12, scale=3.0)


def test_a_run_that_is_resumed_pools_as_it_was_begun(make_model, tmp_path):
    """Before a run took over what the model before did, its config.toml said mean and no longest text."""
    start = before(make_model, tmp_path / "start", pooling="cls", max_length=12)
    begun = EmbedSettings(pooling="mean")
    task = start_from(start, EmbedTask(EmbedSettings()), begun=begun).task
    assert (task.settings, task.longest) == (begun, None)


def test_how_vectors_were_made_may_be_lost_but_not_untold(make_model, tmp_path):
    start = before(make_model, tmp_path / "start", pooling="cls")
    (start / "bothways.json").unlink()
    (start / "modules.json").write_text("[]")
    lost = start_from(start, EmbedTask(EmbedSettings()))
    assert lost.task.settings.pooling == "mean"
    assert len(lost.told) == 1
    assert lost.told[0].startswith(f"how it made vectors is not taken over ({start}")
    assert lost.told[0].endswith("): pooling mean")
    other = start_from(start, ClassifyTask(ClassifySettings(), "one", ["a", "b"]))
    assert other.told == ["starts from random: heads.label.linear"]


def test_pairs_are_read_as_a_search_reads_them(tokenizer, as_records):
    task = EmbedTask(EmbedSettings(), kind="pairs", prompts={"query": "a ", "passage": "b "}, prompt="c ")

    def encode(rows, labelled=True):
        return task.encode(as_records(rows), tokenizer, max_length=32, labelled=labelled)

    def read(rows, labelled=True):
        (encoded,) = encode(rows[:1], labelled)
        return [list(piece.input_ids) for piece in encoded.examples[0].pieces]

    def ids(*texts):
        return [[tokenizer.cls_id, *one.ids, tokenizer.sep_id] for one in tokenizer.encode(texts)]

    assert read(TRIPLETS) == ids("a a b c", "b d e", "b x")
    assert read(GRADED) == ids("c a b c", "c d e")
    assert read(TEXTS) == ids("c a b c", "c a b c")
    assert read(PAIRS, labelled=False) == ids("c a b c", "c d e")
    twice = [{"text_a": "a b", "text_b": "c"}, {"text_a": "d", "text_b": "a b"}]
    keys = [one.examples[0].reads[HEAD].labels[:, 1] for one in encode(twice)]
    assert keys[0][0] == keys[1][1]  # one text, on either side: no negative of itself
    assert len({*keys[0], *keys[1]}) == 3
    task.prompts = {"query": "a "}
    assert read(PAIRS) == ids("a a b c", "c d e")


def test_what_is_said_anew_counts(make_model, tmp_path):
    start = before(make_model, tmp_path / "start", pooling="cls", max_length=12)
    said = EmbedSettings(pooling="max", max_length=9)
    assert start_from(start, EmbedTask(said)).task.settings == said
    words = EmbedTask(EmbedSettings(teacher="t", taught="word"))
    words.kind = "words"
    taken = start_from(start, words)
    assert taken.task.settings.pooling == "mean"
    assert taken.told[0].endswith("the prompts query, usual (none in training), but pooling mean, not cls")
    plain = start_from(save(make_model(None), tmp_path / "plain"), EmbedTask(EmbedSettings())).task
    assert (plain.settings, plain.told) == (EmbedSettings(pooling="mean"), [])


def test_a_part_of_several_tasks_goes_on_too(make_model, tmp_path):
    def several():
        return MultiTask({"sense": EmbedTask(EmbedSettings()), "other": EmbedTask(EmbedSettings())}, {})

    start = before(make_model, tmp_path / "start", pooling="cls")
    parts = start_from(start, several()).task.parts
    assert [part.settings.pooling for part in parts.values()] == ["cls", "cls"]
    task = MultiTask({"sense": parts["sense"]}, {"sense": 1.0})
    again = start_from(save(make_model(task), tmp_path / "several"), several())
    assert [part.settings.pooling for part in again.task.parts.values()] == ["cls", "mean"]
    assert len(again.told) == 1
    assert again.told[0].startswith("sense: as the model that it begins from")


# ------------------------------------------------------------------------------------------------------- losses


def keyed(roles, keys):
    return torch.tensor(list(zip(roles, keys, strict=True)))


def test_contrast_is_multiple_negatives_ranking():
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    a, p, n = (F.normalize(torch.randn(5, 8), dim=1) for _ in range(3))
    theirs = losses.MultipleNegativesRankingLoss(None, scale=20.0).compute_loss_from_embeddings([a, p, n], None)
    vectors = torch.stack([a, p, n], 1).reshape(15, 8)
    torch.testing.assert_close(contrast(vectors, keyed([0, 1, 2] * 5, range(15)), scale=20.0), theirs)


def test_cosent_is_theirs():
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    a, b = torch.randn(6, 8), torch.randn(6, 8)
    grades = torch.tensor([1.0, 0.5, 0.5, 0.0, 3.0, 2.0])
    theirs = losses.CoSENTLoss(None, scale=20.0).compute_loss_from_embeddings([a, b], grades)
    vectors = torch.stack([a, b], 1).reshape(12, 8)
    labels = grades.repeat_interleave(2)[:, None]
    torch.testing.assert_close(step_loss("graded", vectors, labels, scale=20.0), theirs)


def test_the_same_text_elsewhere_is_no_negative():
    vectors = F.normalize(torch.randn(6, 4), dim=1)
    labels = keyed([0, 1, 0, 1, 0, 1], [1, 9, 2, 9, 3, 1])  # two anchors share a positive; one is another's positive
    logits = vectors[0::2] @ vectors[1::2].T
    own = [logits[0, :1], logits[1, 1:], logits[2]]
    wanted = [torch.logsumexp(rest, 0) - logits[n, n] for n, rest in enumerate(own)]
    torch.testing.assert_close(contrast(vectors, labels, scale=1.0), torch.stack(wanted).mean())


def test_one_pair_alone_teaches_nothing():
    vectors = torch.randn(2, 4, requires_grad=True)
    for kind, labels in (("pairs", keyed([0, 1], [1, 2])), ("graded", torch.ones(2, 1))):
        loss = step_loss(kind, vectors, labels, scale=20.0)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)


def test_grades_that_are_equal_say_nothing():
    vectors = F.normalize(torch.randn(8, 4), dim=1)
    assert float(cosent(vectors, torch.ones(8, 1), scale=20.0)) == 0.0


def test_distillation_goes_to_the_teacher_or_to_its_relations():
    teacher = F.normalize(torch.randn(5, 8), dim=1)
    assert float(distillation(teacher, teacher)) == 0.0
    turned = teacher @ torch.linalg.qr(torch.randn(8, 8)).Q  # other vectors, the same cosines between them
    assert float(distillation(turned, teacher)) > 0.1
    wider = F.pad(turned, (0, 3))
    assert float(distillation(wider, teacher)) == pytest.approx(0.0, abs=1e-6)


def test_a_text_and_its_translations_learn_the_same_vector(make_model, as_records):
    model, task, examples = made(make_model, as_records, TRANSLATED)
    assert task.kind == "teacher"
    assert [len(example.reads[HEAD].groups) for example in examples] == [2, 3, 1]
    labels = [example.reads[HEAD].labels for example in examples]
    for row, own in zip(TRANSLATED, labels, strict=True):
        np.testing.assert_allclose(own, np.array([row["vector"]] * len(own)), rtol=1e-6)
    with torch.no_grad():
        vectors = model.network(batch := pack(examples))[HEAD]
        found = task.losses({HEAD: vectors}, batch)[HEAD] / batch.targets[HEAD].weight
    every = torch.tensor(np.concatenate(labels))
    torch.testing.assert_close(found, (F.normalize(vectors, dim=1) - F.normalize(every, dim=1)).square().sum(1).mean())
    alone = Predictor(model, device="cpu").predict([{"text": "a b c", "translation": "x"}])
    assert len(alone[0]["vector"]) == 32  # to predict, a translation is a field like any other


# ------------------------------------------------------------------------------------------------ cached gradients


def gradients(model, backward):
    model.network.zero_grad()
    losses = backward()
    return losses, {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_cached_gradients_are_the_plain_ones(make_model, as_records, kind):
    model, task, examples = made(make_model, as_records, KINDS[kind], dropout=0.3)
    model.network.train()
    whole = pack(examples)
    weights = {HEAD: whole.targets[HEAD].weight}

    def plain():
        loss = task.losses(model.network(whole), whole)[HEAD] / weights[HEAD]
        loss.backward()
        return {HEAD: loss.detach()}

    def cached():
        return task.backward(model.network, [pack([one]) for one in examples], weights)

    loss, wanted = gradients(model, plain)
    again, found = gradients(model, cached)
    torch.testing.assert_close(again[HEAD], loss[HEAD])
    assert wanted.keys() == found.keys()
    assert max(float(gradient.abs().max()) for gradient in wanted.values()) > 1e-4
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    one, alone = gradients(model, lambda: task.backward(model.network, [whole], weights))
    torch.testing.assert_close(one[HEAD], loss[HEAD])
    for name, gradient in wanted.items():
        torch.testing.assert_close(alone[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_parts_by_themselves_would_be_another_loss(make_model, as_records, monkeypatch):
    model, task, examples = made(make_model, as_records, PAIRS)
    group = [pack([one]) for one in examples]
    weights = {HEAD: float(len(examples))}
    assert float(task.backward(model.network, group, weights)[HEAD]) > 0.1
    monkeypatch.setattr(task, "joint_losses", dict)
    assert float(task.backward(model.network, group, weights)[HEAD]) == pytest.approx(0.0, abs=1e-5)


def test_a_text_meets_other_dropout_in_its_second_reading(make_model, as_records):
    model, _, examples = made(make_model, as_records, TEXTS, dropout=0.3)
    model.network.train()
    first, second = model.network(pack(examples[:1]))[HEAD].detach()
    assert float(first @ second) < 0.999
    model.network.eval()
    first, second = model.network(pack(examples[:1]))[HEAD].detach()
    torch.testing.assert_close(first, second)


# ------------------------------------------------------------------------------------------------------- records


def test_what_is_read_of_each_kind(make_model, as_records):
    _, task, examples = made(make_model, as_records, TRIPLETS)
    assert task.kind == "pairs"
    assert [len(example.reads[HEAD].groups) for example in examples] == [3, 4, 3]
    assert examples[1].reads[HEAD].labels[:, 0].tolist() == [0, 1, 2, 2]
    theirs = [{"anchor": row["text_a"], "positive": row["text_b"], "negative": row["negative"]} for row in TRIPLETS]
    same = made(make_model, as_records, theirs)[2]
    np.testing.assert_array_equal(same[2].reads[HEAD].labels, examples[2].reads[HEAD].labels)
    graded = made(make_model, as_records, [{"text_a": "a", "text_b": "b", "score": "0.5"}])
    assert graded[1].kind == "graded"
    assert graded[2][0].reads[HEAD].labels.tolist() == [[0.5], [0.5]]


def test_pairs_of_another_label_are_left_out(make_model, as_records):
    rows = [row | {"label": label} for row, label in zip(PAIRS, ("yes", "no", "yes"), strict=True)]
    settings = EmbedSettings(positive="yes")
    model, _, examples = made(make_model, as_records, rows, settings)
    assert len(examples) == 2
    scores = Predictor(model, device="cpu").score(as_records(rows))
    assert scores["candidates"] == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*PAIRS, {"text": "a"}], "<records>:4: a record of single texts among records of pairs; wanted all of one"),
        (
            [PAIRS[0] | {"label": "yes"}],
            "\"label\" is 'yes'; wanted a number that grades the pair, or --embed.pos",
        ),
        ([{"text_a": "a", "text_b": " "}], "<records>:1: a text is empty"),
        ([{"text_a": "a"}], "<records>:1: no field 'text_b'"),
        ([TEACHER[0], NARROW[1]], '<records>:2: "vector" has 5 numbers, those before have 32'),
        ([{"text": "a", "vector": [1, "x"]}], "<records>:1: number 2 of \"vector\" is 'x'; wanted finite numbers"),
        ([{"text": "a", "vector": []}], '<records>:1: "vector" is an empty list'),
        ([PAIRS[0] | {"negative": 5}], "<records>:1: 'negative' is a whole number"),
        ([], "there is no record"),
    ],
)
def test_records_that_cannot_be_learnt_from(make_model, as_records, rows, message):
    with pytest.raises(DataError) as caught:
        made(make_model, as_records, rows)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ metrics


def test_ranks_among_all_texts(as_records):
    task = EmbedTask(EmbedSettings())
    vectors = [[[1, 0], [1, 0.1]], [[0, 1], [1, 1]], [[0.6, 0.8], [0, 1]]]  # nearest: own; third's; second's, then own
    found = task.metrics(as_records(PAIRS), [{"vectors": one, "score": 0} for one in vectors])
    assert found == pytest.approx(
        {"accuracy": 1 / 3, "mrr@10": (1 + 1 / 2 + 1 / 2) / 3, "recall@10": 1.0, "candidates": 3, "score": 2 / 3}
    )


def test_an_anchor_is_not_ranked_against_its_own_text(as_records):
    records = as_records([{"text_a": "a", "text_b": "b"}, {"text_a": "b", "text_b": "a"}])
    near = [[1.0, 0.1], [1.0, 0.0]]
    scores = embed_metrics(records, [{"vectors": near}, {"vectors": near[::-1]}], "pairs")
    assert (scores["accuracy"], scores["mrr@10"], scores["candidates"]) == (1.0, 1.0, 2)
    same = as_records([{"text_a": "a", "text_b": "a"}, {"text_a": "b", "text_b": "c"}])
    assert (
        embed_metrics(same, [{"vectors": [[1.0, 0.0]] * 2}, {"vectors": [[0.0, 1.0]] * 2}], "pairs")["accuracy"] == 1.0
    )


def test_one_point_for_all_texts_is_no_good_score(as_records):
    task = EmbedTask(EmbedSettings())
    found = task.metrics(as_records(PAIRS), [{"vectors": [[1, 0], [1, 0]], "score": 1.0}] * 3)
    assert found["accuracy"] == 0.0


def test_metrics_of_the_other_kinds(as_records):
    task = EmbedTask(EmbedSettings())
    graded = task.metrics(as_records(GRADED), [{"score": score} for score in (0.9, 0.1, 0.5)])
    assert (graded["spearman"], graded["score"]) == (pytest.approx(1.0), pytest.approx(1.0))
    same = task.metrics(as_records(TEACHER), [{"vector": row["vector"]} for row in TEACHER])
    assert same["cosine"] == pytest.approx(1.0)
    half = [{"vectors": [row["vector"], [-x for x in row["vector"]]]} for row in TEACHER]
    assert task.metrics(as_records(TEACHER), half)["cosine"] == pytest.approx(0.0, abs=1e-6)
    relations = task.metrics(as_records(NARROW), [{"vector": [*row["vector"], 0.0]} for row in NARROW])
    assert relations["spearman"] == pytest.approx(1.0)
    even = task.metrics(as_records(TEXTS[:2]), [{"vectors": [[1, 0]]}, {"vectors": [[-1, 0]]}])
    assert even["uniformity"] == pytest.approx(math.log(math.exp(-8)))


@pytest.mark.parametrize(
    ("kind", "measure"),
    [("pairs", "accuracy"), ("graded", "spearman"), ("teacher", "cosine"), ("translated", "cosine")],
)
def test_a_tiny_model_learns_them(make_model, as_records, trained, kind, measure):
    rows = KINDS[kind]
    model, _, _ = made(make_model, as_records, rows)
    predictor = trained(model, rows)
    assert predictor.score(as_records(rows))[measure] > 0.9
