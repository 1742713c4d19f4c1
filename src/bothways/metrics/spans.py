"""Strict scores of labelled spans in tagged words: entities, semantic roles, slots with their intent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from bothways.errors import ConfigError, DataError
from bothways.metrics.counts import check_pairs, precision_recall_f1

# The letters of each scheme, as those of BIOES: begin, inside, end, single.
SCHEMES = {
    "BIO": {"B": "B", "I": "I"},
    "BIOES": {"B": "B", "I": "I", "E": "E", "S": "S"},
    "BMES": {"B": "B", "M": "I", "E": "E", "S": "S"},
    "BILOU": {"B": "B", "I": "I", "L": "E", "U": "S"},
}


class Span(NamedTuple):
    """Words [start, end) that carry one label."""

    label: str
    start: int
    end: int


def scheme_of(tags: Iterable[str]) -> str:
    """The first of `SCHEMES` that has all the letters found in `tags`.

    Raises:
        DataError: no scheme has them all.
    """
    letters = {tag[:1] for tag in tags} - {"O"}
    for scheme, known in SCHEMES.items():
        if letters <= known.keys():
            return scheme
    raise DataError(
        f"tags that begin with {', '.join(map(repr, sorted(letters)))}; letters of one scheme are wanted: "
        f"{', '.join(SCHEMES)}, as in B-PER, I-PER, O"
    )


def spans(tags: Sequence[str], scheme: str = "BIO") -> list[Span]:
    """The spans that `tags` mark, in order, by the letter of the scheme: nothing is repaired.

    A span begins at B (or S), goes on while I (or E) of the same label follow, and where the scheme has an
    end (BIOES, BMES, BILOU) it counts only if it reaches one. I without B begins nothing. A bare B has the label "_".

    Raises:
        DataError: a tag that is not of the scheme.
        ConfigError: an unknown scheme.

    Reference: seqeval, `mode="strict"` with `scheme=IOB2`, `IOBES` or `BILOU`.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"tagging scheme {scheme!r} is unknown; try one of {', '.join(SCHEMES)}")
    must_end = scheme != "BIO"
    found: list[Span] = []
    start, label = -1, ""
    for at, tag in enumerate([*tags, "O"]):
        letter, kind = _parse(tag, scheme, at)
        continues = start >= 0 and letter in ("I", "E") and kind == label
        if continues and letter == "E":
            found.append(Span(label, start, at + 1))
            start = -1
        elif not continues:
            if start >= 0 and not must_end:
                found.append(Span(label, start, at))
            start, label = (at, kind) if letter == "B" else (-1, "")
            if letter == "S":
                found.append(Span(kind, at, at + 1))
    return found


def entities(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, scheme: str = "BIO"
) -> dict[str, Any]:
    """Strict micro scores of entities: label and both ends must be right.

    A sentence may have fewer predicted tags than gold ones: the words lost to truncation count as O, so their
    entities are missed, and as wrong in `token_accuracy`.

    Returns:
        `precision`, `recall`, `f1`, `token_accuracy`; `words_lost`, a number of words; and `types`, for each
        label its `precision`, `recall`, `f1` and `support` (gold spans).

    Raises:
        DataError: no sentence, numbers that differ, more tags than words, or a tag that is not of the scheme.

    Reference: seqeval, `mode="strict"` with `scheme=IOB2` or `IOBES`. Its default mode imitates conlleval instead,
    where an I may begin an entity, and so scores higher.
    """
    return _scores(gold, predicted, _entity_sets(gold, predicted, scheme))


def entity_counts(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, scheme: str = "BIO"
) -> list[tuple[int, int, int]]:
    """For each sentence its entities: right, predicted, gold. `paired_bootstrap` resamples these.

    Raises:
        DataError: as in `entities`.
    """
    return [(len(right & found), len(found), len(right)) for right, found in _entity_sets(gold, predicted, scheme)]


def token_accuracy(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """The share of gold words whose tag is right; a word with no predicted tag is wrong, whatever its gold tag.

    Raises:
        DataError: no sentence, numbers that differ, or more tags than words.
    """
    _check_lengths(gold, predicted)
    right = sum(a == b for tags, found in zip(gold, predicted, strict=True) for a, b in zip(tags, found, strict=False))
    words = sum(map(len, gold))
    return right / words if words else 0.0


def roles(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, scheme: str = "BIO") -> dict[str, Any]:
    """Scores of semantic roles; one tag sequence is one predicate with its arguments.

    V (the predicate itself) is not scored. C-X continues the last X before it: all parts are one argument, right
    only as a whole; with no X before it, it is an X. R-X is a label of its own.

    Returns:
        As `entities`, and `perfect`: the share of predicates with all arguments right and none too many.

    Raises:
        DataError: as in `entities`.

    Reference: srl-eval.pl of CoNLL-2005, Carreras and Màrquez.
    """
    pairs = _role_sets(gold, predicted, scheme)
    return {**_scores(gold, predicted, pairs), "perfect": sum(right == found for right, found in pairs) / len(pairs)}


def role_counts(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, scheme: str = "BIO"
) -> list[tuple[int, int, int]]:
    """For each predicate its arguments: right, predicted, gold. `paired_bootstrap` resamples these.

    Raises:
        DataError: as in `entities`.
    """
    return [(len(right & found), len(found), len(right)) for right, found in _role_sets(gold, predicted, scheme)]


def slots(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    gold_intents: Sequence[Hashable],
    predicted_intents: Sequence[Hashable],
    *,
    scheme: str = "BIO",
) -> dict[str, Any]:
    """Scores of slots (strict, as `entities`), of intents, and of whole frames.

    A frame is right when the intent and the tag of every word are.

    Returns:
        `slot_f1`, `slot_precision`, `slot_recall`, `intent_accuracy`, `frame_accuracy`, `token_accuracy`,
        `words_lost` and `types`.

    Raises:
        DataError: as in `entities`, for tags and for intents.

    Reference: Goo et al., 2018, for the frame ("semantic") accuracy.
    """
    check_pairs(gold_intents, predicted_intents)
    check_pairs(gold, gold_intents)
    scores = entities(gold, predicted, scheme=scheme)
    intents = [right == found for right, found in zip(gold_intents, predicted_intents, strict=True)]
    tags = [list(right) == list(found) for right, found in zip(gold, predicted, strict=True)]
    return {
        "slot_f1": scores["f1"],
        "slot_precision": scores["precision"],
        "slot_recall": scores["recall"],
        "intent_accuracy": sum(intents) / len(intents),
        "frame_accuracy": sum(map(all, zip(intents, tags, strict=True))) / len(intents),
        **{key: scores[key] for key in ("token_accuracy", "words_lost", "types")},
    }


# A span or an argument of several parts; label first in both.
_Items = set[Any]


def _scores(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], pairs: list[tuple[_Items, _Items]]
) -> dict[str, Any]:
    """Micro scores and the table by label, of the sets found in each sentence."""
    counts = {name: Counter() for name in ("right", "found", "gold")}
    for right, found in pairs:
        counts["right"].update(item[0] for item in right & found)
        counts["found"].update(item[0] for item in found)
        counts["gold"].update(item[0] for item in right)
    micro = precision_recall_f1(*(counter.total() for counter in counts.values()))
    return {
        **micro._asdict(),
        "token_accuracy": token_accuracy(gold, predicted),
        "words_lost": sum(map(len, gold)) - sum(map(len, predicted)),
        "types": {
            label: {
                **precision_recall_f1(*(counter[label] for counter in counts.values()))._asdict(),
                "support": counts["gold"][label],
            }
            for label in sorted(counts["gold"] | counts["found"])
        },
    }


def _entity_sets(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str
) -> list[tuple[_Items, _Items]]:
    _check_lengths(gold, predicted)
    both = zip(_spans(gold, scheme, "gold"), _spans(predicted, scheme, "predicted"), strict=True)
    return [(set(right), set(found)) for right, found in both]


def _role_sets(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str
) -> list[tuple[_Items, _Items]]:
    _check_lengths(gold, predicted)
    both = zip(_spans(gold, scheme, "gold"), _spans(predicted, scheme, "predicted"), strict=True)
    return [(_arguments(right), _arguments(found)) for right, found in both]


def _spans(sentences: Sequence[Sequence[str]], scheme: str, side: str) -> list[list[Span]]:
    found = []
    for number, tags in enumerate(sentences, 1):
        try:
            found.append(spans(tags, scheme))
        except DataError as error:
            raise DataError(f"{side} sentence {number}, {error}") from None
    return found


def _arguments(found: list[Span]) -> _Items:
    """Arguments as (label, parts), continuations joined, without the predicate."""
    parts: list[tuple[str, list[Span]]] = []
    latest: dict[str, list[Span]] = {}
    for span in found:
        label = span.label.removeprefix("C-")
        if label != span.label and label in latest:
            latest[label].append(span)
        else:
            latest[label] = [span]
            parts.append((label, latest[label]))
    return {(label, tuple((part.start, part.end) for part in spans)) for label, spans in parts if label != "V"}


def _parse(tag: str, scheme: str, at: int) -> tuple[str, str]:
    """The letter of a tag, as BIOES has it, and its label."""
    if tag == "O":
        return "O", ""
    known = SCHEMES[scheme]
    letter, dash, label = tag[:1], tag[1:2], tag[2:]
    if letter not in known or dash not in ("", "-"):
        wanted = ", ".join(f"{letter}-LABEL" for letter in known)
        raise DataError(f"word {at + 1}: tag {tag!r} is not of the {scheme} scheme; wanted {wanted} or O")
    return known[letter], label or "_"


def _check_lengths(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> None:
    check_pairs(gold, predicted)
    for number, (tags, found) in enumerate(zip(gold, predicted, strict=True), 1):
        if len(found) > len(tags):
            raise DataError(
                f"sentence {number}: {len(found)} predicted tags for {len(tags)} words; at most one a word is wanted: "
                "check that the predictions are of the same file"
            )
