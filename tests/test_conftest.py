"""The tests' own promise: a call with the wrong type or shape fails where it happens."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.batch import Read


def test_types_are_checked_as_the_tests_run():
    rows = np.zeros(1, dtype=np.int64)
    assert Read(rows=rows, groups=rows, weight=1).weight == 1
    with pytest.raises(Exception, match="typechecking parameter 'weight'"):
        Read(rows=rows, groups=rows, weight="1")  # type: ignore[arg-type]
