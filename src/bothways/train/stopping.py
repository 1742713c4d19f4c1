"""How a run is asked to stop: Ctrl-C and SIGTERM, at once before the first step, after a whole step from then on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[[int, Any], None]


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handled_by(stop):
        yield


@contextmanager
def stopped_after_a_step(ranks: int = 1) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM has asked to stop; a second Ctrl-C raises KeyboardInterrupt.

    On several ranks it does not: torchrun passes a signal on to processes that the terminal has sent it to already.
    """
    asked = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if asked.is_set() and ranks == 1 and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    with _handled_by(ask):
        yield asked.is_set


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    """Both signals go to `handler`; outside the main thread, where Python does not allow that, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
