"""What can be said of questions for one prediction: how many candidates are listed, from when there is no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.toys import bothways, write_records

from bothways.errors import ConfigError
from bothways.infer.predictor import Predictor
from bothways.models.model import save
from bothways.tasks.qa import QaSettings, QaTask

LONG = "ab cd ef gh ij kl mn op qr st uv wx yz " * 3 + "电影票 there"


def test_candidates_and_threshold_can_be_said_for_once(make_model: Any) -> None:
    task = QaTask(QaSettings(stride=4, max_answer=3), threshold=0.4)
    predictor = Predictor(make_model(task), device="cpu")
    records = [{"question": "who?", "context": LONG}]
    (plain,) = predictor.predict(records)
    (one,) = predictor.predict(records, top=1)
    (many,) = predictor.predict(records, top="9")
    assert [len(found["candidates"]) for found in (plain, one, many)] == [5, 1, 9]
    assert many["candidates"][:5] == plain["candidates"]
    assert many["tokens"] == plain["tokens"]
    for threshold, answerable in ((0, False), ("0.0", False), (1, True), (None, True), ("none", True)):
        (found,) = predictor.predict(records, threshold=threshold)
        assert found["answerable"] is answerable
        assert bool(found["answer"]) is answerable
        assert len(found["candidates"]) == 5
    (both,) = predictor.predict(records, top=2, threshold=1.0)
    assert both["answer"] == both["candidates"][0]["answer"]
    assert predictor.predict(records) == [plain]  # the model keeps its own
    assert (task.settings.top, task.threshold) == (5, 0.4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"top": 0}, "qa.top is 0; wanted a whole number from 1 to 1000"),
        ({"top": 1001}, "qa.top is 1001; wanted a whole number"),
        ({"top": 2.5}, "qa.top is 2.5; wanted a whole number"),
        ({"top": "many"}, "qa.top is 'many'; wanted a whole number"),
        ({"top": True}, "qa.top is True; wanted a whole number"),
        ({"top": None}, "qa.top is None; wanted a whole number"),
        ({"threshold": 1.5}, "qa.threshold is 1.5; wanted a number from 0 to 1, or none"),
        ({"threshold": "nan"}, "qa.threshold is 'nan'; wanted a number from 0 to 1, or none"),
        ({"threshold": "high"}, "qa.threshold is 'high'; wanted a number from 0 to 1, or none"),
        ({"threshold": [0.5]}, "qa.threshold is [0.5]; wanted a number from 0 to 1, or none"),
        ({"best": 3}, "unknown option qa.best; known are qa.top and qa.threshold"),
    ],
)
def test_options_that_can_not_be(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        QaTask(QaSettings()).with_options(**options)
    assert str(caught.value).startswith(told)


def test_the_command_line_takes_them_too(make_model: Any, tmp_path: Path) -> None:
    folder = save(make_model(QaTask(QaSettings(), threshold=0.5)), tmp_path / "model")
    data = write_records(tmp_path / "asked.jsonl", [{"question": "who?", "context": "she likes films"}])
    told = bothways("predict", folder, "--data", data, "--qa.top", 2, "--qa.threshold", 0, "--device", "cpu")
    assert told.code == 0, told.err
    (found,) = map(json.loads, told.out.splitlines())
    assert (len(found["candidates"]), found["answerable"]) == (2, False)
    wrong = bothways("predict", folder, "--data", data, "--qa.top", "few", "--device", "cpu")
    assert (wrong.code, wrong.out) == (2, "")
    assert "qa.top is 'few'; wanted a whole number from 1 to 1000" in wrong.err
