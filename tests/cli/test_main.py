"""The command line's frame: verbs found, mistakes told in one line, nothing heavy imported before it is needed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bothways
from bothways.cli.main import VERBS, main
from bothways.errors import ConfigError, DataError, Stopped

HEAVY = ("torch", "numpy", "pyarrow", "tyro", "sklearn", "scipy", "transformers", "rich")


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], int]], None]:
    """Put a function in the place of `bothways info`."""

    def install(run: Callable[[list[str]], int]) -> None:
        module = ModuleType("bothways.cli.info")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "bothways.cli.info", module)

    return install


def run_bothways(word: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """`python -m bothways WORD` in a process of its own, in a POSIX locale, its output buffered as in a pipe."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    env |= {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": env, **options}
    return subprocess.run([sys.executable, "-m", "bothways", word], **options)


def test_every_verb_has_its_file_and_every_file_its_verb():
    folder = Path(bothways.__file__).parent / "cli"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "main"}
    verbs = {name for name in files if not name.startswith("demo_")}
    assert verbs == set(VERBS)
    assert len(verbs) >= 6


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(words) == 0
    out = capsys.readouterr().out
    assert [name for name in VERBS if f"\n  {name} " not in out] == []


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bothways {bothways.__version__}\n"


@pytest.mark.parametrize("words", ["['--help']", "[]", "['--version']", "['finetun']"])
def test_help_imports_nothing_heavy(words: str):
    code = (
        f"import sys; from bothways.cli.main import main; main({words});"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_a_prediction_imports_no_more_than_it_needs():
    """From a cold start most of the time goes by in imports: a package that comes to be here has to be worth it."""
    code = """
import sys
import torch
before = set(sys.modules)
from bothways.cli.main import main
code = main(["predict", "builtin", "今天下雨。", "--device", "cpu"])
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(code, *sorted(names - {name.partition(".")[0] for name in before} - set(sys.stdlib_module_names)))
print(*sorted(name for name in set(sys.modules) - before if name.startswith(("torch._dynamo", "torch._inductor"))))
"""
    result = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, text=True, check=True)
    *_, told, compiler = result.stdout.splitlines()
    exit_code, *names = told.split()
    assert (exit_code, compiler) == ("0", "")
    needed = {"bothways", "docstring_parser", "jaxtyping", "rjieba", "safetensors", "tokenizers", "tyro", "typeguard"}
    needed |= {"numpy", "tqdm", "typing_extensions", "wadler_lindig"}  # small, or brought along by those
    assert set(names) <= needed
    assert {"tokenizers", "safetensors"} <= set(names)  # else nothing was counted


def test_a_verb_gets_its_words_and_gives_the_exit_code(verb):
    seen: list[list[str]] = []
    verb(lambda words: seen.append(words) or 7)
    assert main(["info", "folder", "--json"]) == 7
    assert seen == [["folder", "--json"]]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["finetun"], "unknown verb 'finetun'; did you mean finetune?"),
        (["--seed", "1"], "unknown verb '--seed'; verbs are demo,"),
        (["zzz"], "unknown verb 'zzz'; verbs are demo, vocab,"),
    ],
)
def test_an_unknown_verb_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"bothways: error: {line}")
    assert captured.err.count("\n") == 1


def _raise(error: BaseException) -> Callable[[list[str]], int]:
    def run(words: list[str]) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("no text; wanted {…}", path="a.jsonl", line=3), 2, "a.jsonl:3: no text; wanted {…}"),
        (ConfigError("two\nlines\x1b[31m\u4e2d\u6587"), 2, "two lines\\x1b[31m\u4e2d\u6587"),
        (Stopped("saved at step 3"), 130, "saved at step 3"),
        (KeyboardInterrupt(), 130, "stopped"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/x y"), 2, "'/x y': Permission denied; choose"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), 2, "'a': No such file or directory"),
        (FileExistsError(errno.EEXIST, "File exists", "a.txt"), 2, "'a.txt': File exists; choose another path"),
        (ModuleNotFoundError(name="usearch.x"), 2, "info needs usearch; in the checkout: pip install '.[vectors]'"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    error: BaseException, code: int, line: str, verb, capfd: pytest.CaptureFixture[str]
):
    verb(_raise(error))
    assert main(["info"]) == code
    captured = capfd.readouterr()
    assert captured.err.startswith(f"bothways: error: {line}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), OSError(errno.EIO, "ours"), ImportError("ours")])
def test_our_own_mistake_keeps_its_traceback(error: Exception, verb, capsys: pytest.CaptureFixture[str]):
    verb(_raise(error))
    assert main(["info"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1] == (
        f"bothways: this is a mistake in bothways {bothways.__version__}; please report it with the lines above"
    )


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (None, 0), (3, 3), ("text", 2)])
def test_system_exit_becomes_the_exit_code(code: int | str | None, expected: int, verb):
    verb(_raise(SystemExit(code)))
    assert main(["info"]) == expected


def test_output_is_utf8_whatever_the_locale():
    helped = run_bothways("--help")
    assert (helped.returncode, helped.stderr) == (0, b"")
    assert "VERB …" in helped.stdout.decode("utf-8")
    told = run_bothways(b"\xe4\xbd\xa0\xff".decode("utf-8", "surrogateescape"))
    assert told.returncode == 2
    assert "\\udcff" in told.stderr.decode("utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "wb") as full:
        result = run_bothways("--help", stdout=full)
    assert result.returncode == 2
    assert result.stderr == b"bothways: error: No space left on device; free some space, or write elsewhere\n"


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_a_reader_that_goes_away_is_no_error(word: str):
    reading, writing = os.pipe()
    os.close(reading)
    result = run_bothways(word, stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")
