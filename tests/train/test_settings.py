"""Settings that can't be are told before anything is read: out of range, not finite, or at odds with each other."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bothways import config
from bothways.errors import ConfigError
from bothways.train.settings import Corpus, Finetune, Pretrain

BOTH = pytest.mark.parametrize("verb", [Finetune, Pretrain])


def refusal(verb: type[Any], **given: Any) -> str:
    with pytest.raises(ConfigError) as told:
        config.from_dict(verb, given)
    return str(told.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"mask_rate": 15.0}, "corpus.mask_rate is 15.0; wanted a number between 0 and 1, such as 0.15"),
        ({"mask_rate": math.nan}, "corpus.mask_rate is nan; wanted a number between 0 and 1, such as 0.15"),
        ({"whole_words": 2.0}, "corpus.whole_words is 2.0; it is a share of the sequences, from 0 to 1"),
        ({"short_rate": -0.1}, "corpus.short_rate is -0.1; wanted a number from 0 to 1, such as 0.1"),
        ({"cls_words": 0}, "corpus.cls_words is 0; wanted at least 1, or none"),
        ({"max_length": 4}, "corpus.max_length is 4; wanted at least 5"),
        ({"max_length": 3, "second": None}, "corpus.max_length is 3; wanted at least 4"),
        ({"max_length": 100_000_000}, "corpus.max_length is 100000000; it must be at most 16,777,216"),
        ({"workers": 0}, "corpus.workers is 0; it must be at least 1, or none for one a core"),
    ],
)
def test_a_corpus_out_of_range(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        Corpus(**given)
    assert str(error.value) == told


def test_a_corpus_in_range() -> None:
    assert Corpus(max_length=4, second=None, whole_words=0.0, short_rate=1.0).max_length == 4


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e308, 0.0])
@pytest.mark.parametrize(("verb", "name"), [(Finetune, "minutes"), (Pretrain, "minutes"), (Pretrain, "epochs")])
def test_how_long_is_a_number_that_can_be_reached(verb: type[Any], name: str, value: float) -> None:
    assert refusal(verb, **{name: value}) == f"{name} is {value}; it must be above 0 and at most 1,000,000,000"


def test_epochs_or_minutes() -> None:
    assert refusal(Finetune, epochs=10, minutes=5.0) == "epochs is 10 and minutes is 5; give one of the two"
    assert config.from_dict(Finetune, {"epochs": 3, "minutes": 5.0}).minutes == 5.0  # as a run's config.toml has it


@BOTH
@pytest.mark.parametrize("name", ["lr", "weight_decay", "eps", "clip"])
def test_the_optimizer_s_numbers_are_finite(verb: type[Any], name: str) -> None:
    told = refusal(verb, optim=settled(verb) | {name: math.inf})
    assert told == f"optim.{name} is inf; it must be a finite number; leave it out for the default"


def settled(verb: type[Any]) -> dict[str, Any]:
    """What pre-training wants said."""
    return {"method": "adamw", "lr": 1e-3} if verb is Pretrain else {}


@BOTH
@pytest.mark.parametrize("name", ["dropout", "attention_dropout"])
def test_dropout_leaves_something(verb: type[Any], name: str) -> None:
    """Probabilities are rounded to multiples of 1/65,536, and what is kept is divided by its share."""
    told = refusal(verb, optim=settled(verb) | {name: 0.999999})
    assert told == f"optim.{name} is 0.999999, which is rounded to 1: all would be dropped; it must be below 0.99999"
    assert getattr(config.from_dict(verb, {"optim": settled(verb) | {name: 0.9999}}).optim, name) == 0.9999


@BOTH
def test_a_stable_schedule_has_room_for_its_parts(verb: type[Any]) -> None:
    """Where they overlap, the rate would jump from the one's to the other's."""
    given = settled(verb) | {"schedule": "stable", "warmup": 0.5, "decay": 0.7}
    assert refusal(verb, optim=given) == (
        "optim.warmup is 0.5 and optim.decay is 0.7, more than all of the steps together; "
        "a stable schedule wants them to be at most 1 in sum; lower one of them"
    )
    for allowed in ({"decay": 0.5}, {"schedule": "linear"}, {"warmup": 0.3}):
        config.from_dict(verb, {"optim": given | allowed})
    config.from_dict(verb, {"optim": settled(verb) | {"schedule": "stable"}})
    for tenths in range(11):  # whose sums in binary may be a little more than 1
        parts = {"warmup": tenths / 10, "decay": 1 - tenths / 10}
        config.from_dict(verb, {"optim": given | parts})
