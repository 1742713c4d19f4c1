"""What is asked from Python as records, and the next of them made ready beside the answering of these."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from bothways.data.record import Record
from bothways.errors import DataError

_T = TypeVar("_T")
Input = str | Mapping[str, Any] | tuple[str, str]


def records_of(inputs: Sequence[Input]) -> Iterator[Record]:
    """Texts, pairs or records from Python as records; their place counts from 1."""
    if isinstance(inputs, str | Mapping):
        inputs = [inputs]
    for number, given in enumerate(inputs, start=1):
        if isinstance(given, str):
            fields: dict[str, Any] = {"text": given}
        elif isinstance(given, Mapping):
            fields = dict(given)
        elif isinstance(given, tuple | list) and len(given) == 2:
            fields = {"text_a": given[0], "text_b": given[1]}
        else:
            raise DataError(
                f"a text, a pair of texts or a record was wanted, found {type(given).__name__}",
                path="<records>",
                line=number,
            )
        yield Record(fields, "<records>", number)


def meanwhile(function: Callable[..., _T], *arguments: Any) -> Future[_T]:
    """The function's result, computed beside the caller by a thread that does not keep the process from ending."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="bothways-reader", daemon=True).start()
    return future
