"""What all tests share: shapes checked as they run, two threads, fixed seeds, and the real data where there is any."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# Before any of them is imported: from here on, every call checks its arguments' and its result's shapes and types.
install_import_hook(
    ["bothways.batch", "bothways.models", "bothways.nn", "bothways.tasks"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",  # an int will do where a float is wanted
)

# Examples take as long as the machine lets them, and the same ones are drawn in every run.
settings.register_profile("bothways", deadline=None, derandomize=True)
settings.load_profile("bothways")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests whose data or device is not here."""
    missing = {
        "shared": (not SHARED.is_dir(), "no real data beside the checkout"),
        "gpu": (not torch.cuda.is_available(), "no CUDA device"),
    }
    for item in items:
        for marker, (absent, why) in missing.items():
            if absent and item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test starts from the same random state, with as many threads as the smallest machine has cores."""
    torch.set_num_threads(2)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; a test that takes it is marked `shared`."""
    if not SHARED.is_dir():
        pytest.skip("no real data beside the checkout")
    return SHARED
