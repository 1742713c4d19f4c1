"""Tests of scores of generated text, against sacreBLEU, rouge-score and hand-counted cases."""

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from bothways.errors import DataError
from bothways.metrics.overlap import bleu, chrf, distinct, generation, rouge

ENGLISH = ["The cat sat on the mat.", "He's gone to London, they said."]
GUESSES = ["The cats sat on a mat.", "He has gone to London, they say."]


def test_bleu_and_chrf_equal_sacrebleu_and_name_their_signature():
    score, signature = bleu(ENGLISH, GUESSES, language="en")
    assert score == pytest.approx(sacrebleu.corpus_bleu(GUESSES, [ENGLISH]).score)
    assert 0 < score < 100
    assert "tok:13a" in signature
    assert f"version:{sacrebleu.__version__}" in signature
    assert chrf(ENGLISH, GUESSES)[0] == pytest.approx(sacrebleu.corpus_chrf(GUESSES, [ENGLISH]).score)


def test_chinese_bleu_is_cut_into_characters():
    score, signature = bleu(["今天天气很好。"], ["今天天气不好。"], language="zh")
    assert "tok:zh" in signature
    assert score == pytest.approx(sacrebleu.corpus_bleu(["今天天气不好。"], [["今天天气很好。"]], tokenize="zh").score)
    assert score > 40
    assert bleu(["今天天气很好。"], ["今天天气不好。"], language="en")[0] < 20  # one word and a stop


def test_records_may_have_different_numbers_of_references():
    gold = [["The cats sat on a mat."], ["wholly other", "He has gone to London, they say."]]
    assert bleu(gold, GUESSES, language="en")[0] == pytest.approx(100)
    assert rouge(gold, GUESSES, language="en")["rougeL"] == pytest.approx(1)
    # A reference that is not there is no empty reference, to which a short guess would come closest in length.
    guesses = ["A mat.", GUESSES[1]]
    doubled = [[text, text] if isinstance(text, str) else text for text in [gold[0][0], gold[1]]]
    assert bleu(gold, guesses, language="en")[0] == pytest.approx(bleu(doubled, guesses, language="en")[0])


def test_english_rouge_equals_rouge_score_with_stems():
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, use_stemmer=True)
    each = [scorer.score(gold, guess) for gold, guess in zip(ENGLISH, GUESSES, strict=True)]
    expected = {name: sum(score[name].fmeasure for score in each) / 2 for name in names}
    assert rouge(ENGLISH, GUESSES, language="en") == pytest.approx(expected)


def test_chinese_rouge_counts_characters():
    # 5 and 6 characters; common 今 天 气 好, in this order; the only common pair is 天气.
    scores = rouge(["今天天气好"], ["今日天气很好"], language="zh")
    assert scores["rouge1"] == pytest.approx(2 * 4 / 11)
    assert scores["rouge2"] == pytest.approx(2 * 1 / 9)
    assert scores["rougeL"] == pytest.approx(2 * 4 / 11)
    alone = RougeScorer(["rouge1"]).score("今天天气好", "今日天气很好")
    assert alone["rouge1"].fmeasure == 0.0  # why characters are needed


@pytest.mark.parametrize(
    ("gold", "guess", "shared", "tokens"),
    [
        ("Сегодня хорошая погода.", "сегодня плохая погода", 2, 6),
        ("きょうは晴れ", "きょうも晴れ", 5, 12),
        ("오늘 날씨가 좋다", "오늘 날씨가 나쁘다", 4 / 2, 6),
    ],
)
def test_other_scripts_have_a_rouge(gold: str, guess: str, shared: float, tokens: int):
    """rouge-score's own tokenizer would give 0 for the very text."""
    found = generation([gold], [guess], language="other")
    assert found["rouge1"] == pytest.approx(2 * shared / tokens)
    assert found["signatures"]["rouge"] == "mean F1|words, characters where there are no spaces"
    assert generation(["Un café."], ["Un café."], language="other")["signatures"]["rouge"].endswith("Porter stems")


def test_distinct_counts_over_all_predictions():
    assert distinct(["a b a", "a b"], 1, language="en") == 2 / 5
    assert distinct(["a b a", "a b"], 2, language="en") == 2 / 3
    assert distinct(["我我 们"], 1, language="zh") == 2 / 3
    assert distinct([""], 2, language="en") == 0.0


def test_generation_gives_all_scores():
    scores = generation(["今天天气很好。"], ["今天天气很好。"], language="zh")
    assert [scores.pop("bleu"), scores.pop("chrf")] == pytest.approx([100, 100])
    assert scores.pop("signatures")["rouge"] == "mean F1|characters"
    assert scores == {"rouge1": 1, "rouge2": 1, "rougeL": 1, "distinct1": 6 / 7, "distinct2": 1}


def test_a_record_without_references_is_an_error():
    with pytest.raises(DataError, match="record 2 has no reference text; at least one is wanted"):
        generation([["a"], []], ["a", "b"], language="en")
