"""Scores of generated text: overlap with references (BLEU, chrF, ROUGE) and variety (distinct n-grams)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bothways.errors import DataError
from bothways.metrics.counts import check_pairs

# Han, kana, Thai, Lao, Burmese, Khmer: a character each; of other scripts a word, with its combining marks.
_NO_SPACES = "\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORDS = re.compile(rf"[{_NO_SPACES}]|[^\W{_NO_SPACES}]+")
References = Sequence[str] | Sequence[Sequence[str]]  # one text a record, or several


def generation(gold: References, predicted: Sequence[str], *, language: str) -> dict[str, Any]:
    """All scores of generated text; `language` is that of the targets, "zh" or another.

    Returns:
        `bleu` and `chrf`, between 0 and 100; `rouge1`, `rouge2`, `rougeL`, `distinct1`, `distinct2`, between 0
        and 1; `signatures`: how each was counted, to be printed with it.

    Raises:
        DataError: no record, numbers that differ, or a record without a reference.
    """
    bleu_score, bleu_signature = bleu(gold, predicted, language=language)
    chrf_score, chrf_signature = chrf(gold, predicted)
    tokens = _tokens_of(gold, language)[1]
    return {
        "bleu": bleu_score,
        "chrf": chrf_score,
        **rouge(gold, predicted, language=language),
        "distinct1": distinct(predicted, 1, language=language),
        "distinct2": distinct(predicted, 2, language=language),
        "signatures": {
            "bleu": bleu_signature,
            "chrf": chrf_signature,
            "rouge": f"mean F1|{tokens}",
        },
    }


def bleu(gold: References, predicted: Sequence[str], *, language: str) -> tuple[float, str]:
    """Corpus BLEU between 0 and 100, and sacreBLEU's signature: tokenizer `zh` for Chinese targets, else `13a`.

    Raises:
        DataError: as in `generation`.

    Reference: Post, 2018.
    """
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize="zh" if language == "zh" else "13a")
    return _sacrebleu(metric, gold, predicted)


def chrf(gold: References, predicted: Sequence[str]) -> tuple[float, str]:
    """Corpus chrF between 0 and 100 (chrF2, up to 6 characters, no words), and sacreBLEU's signature.

    Raises:
        DataError: as in `generation`.

    Reference: Popović, 2015.
    """
    from sacrebleu.metrics.chrf import CHRF

    return _sacrebleu(CHRF(), gold, predicted)


def rouge(gold: References, predicted: Sequence[str], *, language: str) -> dict[str, float]:
    """Mean F1 of `rouge1`, `rouge2`, `rougeL` (over the whole text), the best of each over a record's references.

    Tokens of Chinese are its characters, as `rouge_tokens` has them, since rouge-score's own tokenizer drops all
    but a-z and 0-9 and so scores 0. Other languages use that one with Porter stems, as ROUGE-1.5.5 -m, unless most
    letters of the references are none of a-z: then tokens are their words, and in scripts without spaces characters.

    Raises:
        DataError: as in `generation`.

    Reference: Lin, 2004; Hu et al., 2015 (LCSTS), for characters.
    """
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL"]
    texts = _references(gold, predicted)
    scorer = RougeScorer(names, use_stemmer=True, tokenizer=_tokens_of(gold, language)[0])
    scores = [scorer.score_multi(right, found) for right, found in zip(texts, predicted, strict=True)]
    return {name: sum(float(score[name].fmeasure) for score in scores) / len(scores) for name in names}


def rouge_tokens(text: str) -> list[str]:
    """Every character but white space, in lower case, punctuation and Latin letters too."""
    return list("".join(text.lower().split()))


def distinct(predicted: Sequence[str], n: int, *, language: str) -> float:
    """Different n-grams over all n-grams of all predictions, of characters in Chinese, else of words; 0 for none.

    Reference: Li et al., 2016.
    """
    grams = [
        tuple(tokens[i : i + n])
        for text in predicted
        for tokens in [rouge_tokens(text) if language == "zh" else text.split()]
        for i in range(len(tokens) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True)
class _Tokens:
    """A tokenizer as rouge-score wants it."""

    tokenize: Callable[[str], list[str]]


def _tokens_of(gold: References, language: str) -> tuple[_Tokens | None, str]:
    """How ROUGE parts texts of the references' language, none being rouge-score's own way, and what that is called."""
    if language == "zh":
        return _Tokens(rouge_tokens), "characters"
    letters = "".join(text for right in gold for text in ([right] if isinstance(right, str) else right)).lower()
    own, every = len(re.findall("[a-z]", letters)), len(re.findall(r"[^\W\d_]", letters))
    if 2 * own >= every:
        return None, "words, Porter stems"
    return _Tokens(lambda text: _WORDS.findall(text.lower())), "words, characters where there are no spaces"


def _sacrebleu(metric: Any, gold: References, predicted: Sequence[str]) -> tuple[float, str]:
    texts = _references(gold, predicted)
    most = max(map(len, texts))
    # sacreBLEU wants the first references of all records, then the second ones; None where a record has fewer.
    streams = [[right[i] if i < len(right) else None for right in texts] for i in range(most)]
    score = metric.corpus_score(list(predicted), streams)
    return float(score.score), str(metric.get_signature())


def _references(gold: References, predicted: Sequence[str]) -> list[list[str]]:
    check_pairs(gold, predicted)
    texts = [[right] if isinstance(right, str) else list(right) for right in gold]
    if [] in texts:
        raise DataError(f"record {texts.index([]) + 1} has no reference text; at least one is wanted: mend the data")
    return texts
