"""Tests of answer scores: hand-counted cases of the four official scripts."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nltk.tokenize.destructive import NLTKWordTokenizer

from bothways.errors import ConfigError, DataError
from bothways.metrics.latin import latin_words
from bothways.metrics.questions import (
    CMRC_MARKS,
    best_threshold,
    cmrc,
    cmrc_score,
    drcd,
    drcd_score,
    mixed_segmentation,
    normalize_answer,
    question_answering,
    squad,
    squad2,
    squad2_score,
    squad_score,
)


def test_squad_normalises_case_punctuation_articles_and_space():
    assert normalize_answer("  The  U.S.A.'s, an  Apple\n") == "usas apple"
    assert normalize_answer("theatre, another") == "theatre another"
    assert squad_score(["the Denver Broncos"], "Denver broncos!") == (1.0, 1.0)
    # Common: denver, of 2 and 3 words; the better of two right answers counts.
    assert squad_score(["Denver Broncos", "New York"], "Denver in Colorado") == (0.0, pytest.approx(2 / 5))
    # Words are a bag: repeats count as often as both have them.
    assert squad_score(["go go go"], "go go") == (0.0, pytest.approx(0.8))


def test_answers_of_which_nothing_is_left_differ_between_both_squads():
    assert squad_score(["The"], "a") == (1.0, 0.0)
    assert squad2_score(["The"], "a") == (1.0, 1.0)
    assert squad2_score([], "") == (1.0, 1.0)
    assert squad2_score([], "Denver") == (0.0, 0.0)
    assert squad2_score(["Denver"], "") == (0.0, 0.0)


def test_squad_means_and_unanswered_questions():
    assert squad([["a cat"], ["dog"]], ["cat", None]) == {"em": 0.5, "f1": 0.5}


GOLD = [["cat"], ["big dog"], [], []]
PREDICTED = ["cat", "dog", "cow", "hen"]
SURE = [0.1, 0.4, 0.2, 0.9]  # that there is no answer


def test_squad2_scores_by_kind_and_searches_the_threshold():
    scores = squad2(GOLD, PREDICTED, no_answer=SURE, threshold=0.5)
    assert scores["em"] == (1 + 0 + 0 + 1) / 4
    assert scores["f1"] == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    assert (scores["has_answer_em"], scores["no_answer_em"]) == (0.5, 0.5)
    assert squad2(GOLD, PREDICTED, no_answer=SURE, threshold=0.1)["has_answer_em"] == 0.5  # not above: not cut
    # From 2 (all empty): cat +1 at 0.1, cow -1 at 0.2, dog +0 (em) or +2/3 (f1) at 0.4, hen -1 at 0.9.
    assert (scores["best_em"], scores["best_em_threshold"]) == (3 / 4, 0.1)
    assert (scores["best_f1"], scores["best_f1_threshold"]) == (3 / 4, 0.1)
    # Cat and cow give 0.1 to dog and hen, which it cuts: 0 + 1. Dog and hen give 0 (em): cat cut, cow cut: 0 + 1.
    assert scores["held_out_em"] == (0 + 1 + 0 + 1) / 4
    # By f1 they give 0.4: cat and cow stay: 1 + 0.
    assert scores["held_out_f1"] == (0 + 1 + 1 + 0) / 4


def test_squad2_without_probabilities_and_with_empty_predictions():
    assert squad2(GOLD, ["cat", "", "", "hen"])["em"] == 0.5
    assert "no_answer_em" not in squad2([["cat"]], ["cat"])


def test_the_threshold_search_may_stop_among_equal_values_as_the_script_does():
    # All three are cut or kept together, yet the search passes them one by one.
    assert best_threshold([1, 1, 0], ["cat", "dog", "cow"], [0.3, 0.3, 0.3], [True, True, False]) == (1.0, 0.3)
    assert best_threshold([0], ["cow"], [0.3], [False]) == (1.0, 0.0)


def test_the_threshold_search_moves_only_for_a_better_score_and_forgives_empty_texts():
    assert best_threshold([0, 1], ["cow", "cat"], [0.1, 0.2], [False, True]) == (0.5, 0.0)
    assert best_threshold([1, 1], ["", "cat"], [0.1, 0.2], [False, True]) == (1.0, 0.2)


def test_cmrc_cuts_han_characters_and_latin_words():
    assert mixed_segmentation("《BERT》于2018年，由Google's team发布。") == [
        *("bert", "于", "2018", "年", "由", "google", "'s", "team", "发", "布")
    ]
    # Marks are dropped before runs are cut, so that they join what they part.
    assert mixed_segmentation("F-22") == ["f22"]


def test_cmrc_counts_the_longest_contiguous_run():
    # Common in order: 北京大学 without 的; the longest run is 大学, 2 of 4 and 5 pieces.
    assert cmrc_score(["北京大学"], "北方的大学") == (0.0, pytest.approx(2 * 2 / 9))
    assert cmrc_score(["1998年"], "1998 年。") == (0.0, 1.0)
    assert cmrc_score(["《红楼梦》", "石头记"], "红楼梦") == (1.0, 1.0)
    assert cmrc_score(["甲"], "乙") == (0.0, 0.0)


def test_cmrc_keeps_the_ellipsis_and_ends_han_at_9fa5():
    assert cmrc_score(["是的"], "是的……") == (0.0, pytest.approx(2 * 2 / 5))
    assert mixed_segmentation("龥龦龧") == ["龥", "龦龧"]


def test_drcd_counts_bags_of_characters_and_drops_eight_more_marks():
    assert drcd_score(["《紅樓夢》"], "紅樓夢。") == (1.0, 1.0)
    # A bag: the order does not matter to F1.
    assert drcd_score(["甲乙丙"], "丙乙丁戊") == (0.0, pytest.approx(2 * 2 / 7))
    # Other full-width marks stay, spaces between words are characters.
    assert drcd_score(["甲"], "「甲」") == (0.0, pytest.approx(2 / 4))
    assert drcd_score(["ab cd"], "abcd") == (0.0, pytest.approx(8 / 9))


def test_question_answering_picks_the_script():
    gold, predicted = [["北京大学"]], ["北大"]
    assert question_answering(gold, predicted, style="cmrc") == cmrc(gold, predicted) == {"em": 0.0, "f1": 2 / 6}
    assert question_answering(gold, predicted, style="drcd") == drcd(gold, predicted) == {"em": 0.0, "f1": 4 / 6}
    assert question_answering([[]], [""], style="squad2", no_answer=[0.2])["best_f1"] == 1.0


# What can reach the Latin tokenizer: no mark of the scorer's list, no capital.
reachable = [c for c in string.printable + "‘„«»—–…é\u3000" if c not in CMRC_MARKS and c == c.lower()]
pieces = st.one_of(
    st.sampled_from([*reachable, " "]),
    st.sampled_from(["cannot", "gonna ", "'tis", "it's ", "don't ", "we'll ", "u.s.", "3,36", "d'ye", '"a"', "more'n"]),
)


@given(st.lists(pieces, max_size=20).map("".join))
@example("'s t's'.")  # the one rule that random text seldom needs
def test_latin_words_equal_nltk(text):
    assert latin_words(text) == NLTKWordTokenizer().tokenize(text)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: squad([["a"], []], ["a", "b"]), DataError, "question 2 has no right answer; at least one is wanted"),
        (lambda: cmrc([["甲"]], []), DataError, "0 predictions for 1 gold records"),
        (lambda: squad2([[]], [""], no_answer=[]), DataError, "0 predictions for 1 gold records"),
        (
            lambda: question_answering([], [], style="squad3"),
            ConfigError,
            "style 'squad3' is unknown; try one of squad",
        ),
    ],
)
def test_errors_say_what_is_wanted(call, error, text):
    with pytest.raises(error, match=text):
        call()
