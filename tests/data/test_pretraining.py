"""Pre-training examples: every token once an epoch, the same again after an interruption, new in the next epoch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bothways.batch import Example, pack
from bothways.data.pretraining import Coverage, PretrainingSource
from bothways.data.shards import Shards, build_shards
from bothways.errors import ConfigError, DataError
from bothways.text.tokenizer import Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{x}" for x in LETTERS), "."]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_vocab(VOCABULARY)


@pytest.fixture(scope="module")
def shards(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Three shards of documents that each use a few letters only, so that a stranger's sentence can be told."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("pretraining")

    def sentence(letters: list[str]) -> str:
        return " ".join("".join(rng.choice(letters, size=rng.integers(1, 5))) for _ in range(rng.integers(2, 9)))

    with (folder / "text.jsonl").open("w") as file:
        for _ in range(200):
            letters = list(rng.choice(list(LETTERS), size=3, replace=False))
            text = " ".join(sentence(letters).capitalize() + "." for _ in range(rng.integers(1, 30)))
            file.write(json.dumps({"text": text}) + "\n")
    built = build_shards(folder / "text.jsonl", tokenizer, folder / "shards", shard_tokens=5_500)
    assert len(built) == 3
    return built


def source(shards: Shards, tokenizer: Tokenizer, **settings) -> PretrainingSource:
    return PretrainingSource(shards, tokenizer, **{"max_length": 64, "second": "next", "seed": 1, **settings})


def same(one: Example, other: Example) -> bool:
    a, b = one.pieces[0], other.pieces[0]
    segments = (a.segment_ids is None) == (b.segment_ids is None) and (
        a.segment_ids is None or np.array_equal(a.segment_ids, b.segment_ids)
    )
    return (
        segments
        and one.seed == other.seed
        and np.array_equal(a.input_ids, b.input_ids)
        and one.reads.keys() == other.reads.keys()
        and all(
            np.array_equal(getattr(one.reads[head], name), getattr(other.reads[head], name))
            for head in one.reads
            for name in ("rows", "groups", "labels", "weight")
        )
    )


def unmasked(example: Example) -> np.ndarray:
    ids = example.pieces[0].input_ids.copy()
    ids[example.reads["masked"].rows] = example.reads["masked"].labels
    return ids


def examples(made: PretrainingSource, epoch: int = 0) -> list[Example]:
    return [item.make() for item in made.items(epoch)]


def test_cls_is_asked_for_pieces_of_its_own_text(shards: Shards, tokenizer: Tokenizer) -> None:
    plain, asking = (source(shards, tokenizer, cls_words=number) for number in (None, 3))
    for one, other in zip(examples(plain), examples(asking), strict=True):
        few, many = one.reads["masked"], other.reads["masked"]
        asked = many.labels[: len(many.rows) - len(few.rows)]
        text = set(unmasked(one).tolist()) - {tokenizer.cls_id, tokenizer.sep_id}
        assert len(asked) == len(set(asked.tolist())) == min(3, len(text))
        assert set(asked.tolist()) <= text
        assert not many.rows[: len(asked)].any()
        assert np.array_equal(many.rows[len(asked) :], few.rows)
        assert np.array_equal(many.labels[len(asked) :], few.labels)
        assert np.array_equal(one.pieces[0].input_ids, other.pieces[0].input_ids)
    assert all(map(same, *([item.make() for item in made.heldout(50)] for made in (plain, asking))))


@pytest.mark.parametrize("second", ["next", "order", None])
def test_an_epoch_uses_every_token_once(shards: Shards, tokenizer: Tokenizer, second) -> None:
    made = source(shards, tokenizer, second=second)
    items = list(made.items(3))
    every = [item.make() for item in items]
    assert [item.tokens for item in items] == [example.tokens for example in every]
    assert max(item.tokens for item in items) <= 64
    specials = 2 if second is None else 3
    ids = np.concatenate([unmasked(example) for example in every])
    corpus = np.concatenate([shards.read(number).ids for number in range(len(shards))])
    seen = np.bincount(ids, minlength=tokenizer.size)
    assert seen[tokenizer.cls_id] == len(every)
    assert seen[tokenizer.sep_id] == (specials - 1) * len(every)
    seen[[tokenizer.cls_id, tokenizer.sep_id]] = 0
    there = np.bincount(corpus, minlength=tokenizer.size)
    assert np.all(seen <= there), "a token is used twice"

    coverage = made.coverage(3)
    assert coverage.sequences == len(every)
    assert coverage.corpus_tokens == shards.counts.tokens == len(corpus)
    assert coverage.used_tokens == seen.sum()
    assert coverage.used_tokens > 0.99 * len(corpus)
    if second is None:
        assert np.array_equal(seen, there)


def test_sequences_have_berts_form(shards: Shards, tokenizer: Tokenizer) -> None:
    labels = []
    for example in examples(source(shards, tokenizer)):
        piece, reads = example.pieces[0], example.reads
        ids = unmasked(example)
        assert piece.segment_ids is not None
        seps = np.flatnonzero(ids == tokenizer.sep_id)
        assert ids[0] == tokenizer.cls_id
        assert len(seps) == 2
        assert seps[1] == len(ids) - 1
        assert np.array_equal(piece.segment_ids, np.arange(len(ids)) > seps[0])
        masked = reads["masked"]
        assert masked.labels is not None
        assert masked.labels.dtype == np.int64
        assert not np.isin(masked.rows, [0, *seps]).any()
        assert masked.weight == len(masked.rows) == len(masked.labels) == masked.groups.sum() >= 1
        following = reads["next"]
        assert following.rows.tolist() == [0]
        assert following.groups.tolist() == [1]
        assert following.weight == 1
        assert following.labels is not None
        labels.append(int(following.labels[0]))
        # A document has three letters, so the two halves of a pair that belongs together share some.
        letters = [
            {tokenizer.token(token).removeprefix("##") for token in part} - {"."}
            for part in (ids[1 : seps[0]], ids[seps[0] + 1 : -1])
        ]
        if labels[-1] == 0:
            assert len(letters[0] | letters[1]) <= 3
    assert np.mean(labels) == pytest.approx(0.5, abs=0.05)


def test_a_stranger_follows_where_the_label_says_so(shards: Shards, tokenizer: Tokenizer) -> None:
    shared = []
    for example in examples(source(shards, tokenizer)):
        labels = example.reads["next"].labels
        assert labels is not None
        if labels[0] == 1:
            ids = unmasked(example)
            middle = int(np.flatnonzero(ids == tokenizer.sep_id)[0])
            words = [{tokenizer.token(t).removeprefix("##") for t in part} for part in (ids[1:middle], ids[middle:])]
            shared.append(len((words[0] | words[1]) - {".", "[SEP]"}) <= 3)
    assert np.mean(shared) < 0.05


def test_order_has_both_orders(shards: Shards, tokenizer: Tokenizer) -> None:
    labels = [example.reads["next"].labels for example in examples(source(shards, tokenizer, second="order"))]
    assert np.mean(labels) == pytest.approx(0.5, abs=0.05)


def test_without_a_second_sentence_there_is_one_segment(shards: Shards, tokenizer: Tokenizer) -> None:
    for example in examples(source(shards, tokenizer, second=None))[:50]:
        assert example.reads.keys() == {"masked"}
        assert example.pieces[0].segment_ids is None
        assert np.flatnonzero(unmasked(example) == tokenizer.sep_id).tolist() == [example.tokens - 1]


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 0, 0), (0.5, 70, 130), (0.0, 180, 200)])
def test_whole_words_are_masked_whole(
    shards: Shards, tokenizer: Tokenizer, share: float, least: int, most: int
) -> None:
    parted = 0
    for example in examples(source(shards, tokenizer, whole_words=share))[:200]:
        ids, rows = unmasked(example), set(example.reads["masked"].rows.tolist())
        inside = [at for at in range(2, len(ids)) if tokenizer.continuation[ids[at]] and ids[at - 1] > 4]
        parted += any((at in rows) != (at - 1 in rows) for at in inside)
    assert least <= parted <= most


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_from_0_to_1(shards: Shards, tokenizer: Tokenizer, share: float) -> None:
    with pytest.raises(ConfigError, match=f"whole_words is {share}; it is a share of the sequences, from 0 to 1"):
        source(shards, tokenizer, whole_words=share)


def test_masks_are_15_percent(shards: Shards, tokenizer: Tokenizer) -> None:
    every = examples(source(shards, tokenizer))
    masked = sum(len(example.reads["masked"].rows) for example in every)
    assert masked / sum(example.tokens - 3 for example in every) == pytest.approx(0.15, abs=0.005)


def test_skipping_changes_nothing_and_reads_no_tokens(
    shards: Shards, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = source(shards, tokenizer)
    every = list(made.items(2))
    wanted = [item.make() for item in every]
    for skip in (0, 1, len(every) - 20, len(every), len(every) + 5):
        again = list(source(shards, tokenizer).items(2, skip))
        assert [item.tokens for item in again] == [item.tokens for item in every[skip:]]
        assert all(same(item.make(), example) for item, example in zip(again, wanted[skip:], strict=True))
    # Alone, out of order, and twice.
    assert same(every[7].make(), wanted[7])

    made_of_skipped: list[object] = []
    real = PretrainingSource._make
    monkeypatch.setattr(
        PretrainingSource, "_make", lambda *args, **named: made_of_skipped.append(1) or real(*args, **named)
    )
    next(made.items(2, len(every) - 3)).make()
    assert len(made_of_skipped) == 1


def test_epochs_and_seeds_differ(shards: Shards, tokenizer: Tokenizer) -> None:
    made = source(shards, tokenizer)
    first, second = examples(made, 0), examples(made, 1)
    texts, later = ({unmasked(example).tobytes() for example in epoch} for epoch in (first, second))
    assert len(texts & later) < 0.25 * len(texts), "other pairs"
    order = source(shards, tokenizer, second=None, short_rate=0.0)
    first, second = examples(order, 0), examples(order, 1)
    by_text = {unmasked(example).tobytes(): example for example in first}
    assert by_text.keys() == {unmasked(example).tobytes() for example in second}
    assert not any(same(by_text[unmasked(example).tobytes()], example) for example in second), "other masks"
    assert [unmasked(e).tobytes() for e in first[:20]] != [unmasked(e).tobytes() for e in second[:20]], "other order"
    other = examples(source(shards, tokenizer, second=None, short_rate=0.0, seed=2))
    assert not any(same(one, two) for one, two in zip(first, other, strict=True))


def test_shards_mix(shards: Shards, tokenizer: Tokenizer) -> None:
    owners = [item.make.args[0].ids.ctypes.data for item in source(shards, tokenizer).items(0)][:100]  # type: ignore[attr-defined]
    assert len(set(owners)) == 2
    assert 25 < owners.count(owners[0]) < 75


def test_heldout_is_the_same_for_every_seed(shards: Shards, tokenizer: Tokenizer) -> None:
    one, other = (source(shards, tokenizer, seed=seed).heldout(40) for seed in (1, 2))
    assert len(one) == 40
    assert all(same(a.make(), b.make()) for a, b in zip(one, other, strict=True))
    total = len(source(shards, tokenizer).heldout(1_000_000))
    assert total == pytest.approx(source(shards, tokenizer).coverage(0).sequences, rel=0.02)


def test_examples_pack(shards: Shards, tokenizer: Tokenizer) -> None:
    every = examples(source(shards, tokenizer))[:8]
    batch = pack(every)
    rows = batch.target_index[batch.targets["next"].rows]
    assert torch.equal(batch.tokens.input_ids[rows], torch.full((8,), tokenizer.cls_id))
    labels = batch.targets["masked"].labels
    assert labels is not None
    assert len(labels) == batch.targets["masked"].weight == sum(len(e.reads["masked"].rows) for e in every)


def test_tiny_corpora(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a.\n\nb\n")
    built = build_shards(tmp_path / "a.txt", tokenizer, tmp_path / "out")
    made = source(built, tokenizer, max_length=8)
    assert made.coverage(0) == Coverage(
        sequences=1, corpus_tokens=3, unpaired_tokens=1, truncated_tokens=0, cut_sentences=0
    )
    assert [example.tokens for example in examples(made)] == [5]
    assert len(examples(source(built, tokenizer, second=None, max_length=8))) == 2


def test_bad_settings(shards: Shards, tokenizer: Tokenizer) -> None:
    for settings, message in [
        ({"max_length": 4}, "max_length is 4; wanted at least 5"),
        ({"max_length": 3, "second": None}, "max_length is 3; wanted at least 4"),
        ({"cls_words": 0}, "cls_words is 0; wanted at least 1, or none"),
        ({"mask_rate": 0.0}, "mask_rate is 0.0; wanted a number between 0 and 1, such as 0.15"),
        ({"short_rate": 1.5}, "short_rate is 1.5; wanted a number from 0 to 1, such as 0.1"),
        ({"second": "following"}, "second is 'following'; wanted 'next', 'order' or None"),
    ]:
        with pytest.raises(ConfigError, match=message):
            source(shards, tokenizer, **settings)
    with pytest.raises(DataError, match=r"shards: these shards were made with another tokenizer; build them again"):
        source(shards, Tokenizer.from_vocab([*VOCABULARY, "more"]))


@pytest.mark.shared
def test_real_text_is_used_almost_whole(tmp_path: Path) -> None:
    data = Path(__file__).resolve().parents[3] / "shared" / "data"
    real = Tokenizer.from_vocab(data / "vocab" / "bert-base-chinese.txt")
    built = build_shards(data / "zh" / "rawtext" / "wikipedia_zh" / "dev.txt.xz", real, tmp_path / "out")
    assert built.counts.documents == 194
    assert built.counts.unknown_tokens < 0.02 * built.counts.tokens
    made = source(built, real, max_length=128)
    coverage = made.coverage(0)
    assert coverage.used_tokens > 0.998 * coverage.corpus_tokens
    labels = [item.make().reads["next"].labels for item in made.items(0)]
    assert np.mean(labels) == pytest.approx(0.5, abs=0.05)
