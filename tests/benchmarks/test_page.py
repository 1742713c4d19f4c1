"""`python -m benchmarks.page` on small scripts: each is run once, what it printed is kept, and the page tells it."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import page
from benchmarks.plan import MISSED, SECTIONS, Measurement, Section


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three scripts: one that is well, one whose promise does not hold, one that fails; and one without its data."""
    scripts = {
        "well": "print('## minilm, lengths mixed\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n\\n## More')",
        "missed": f"import sys\nprint('0.5 × only')\nsys.exit({MISSED})",
        "fails": "print('half a table')\nraise ValueError('no such kernel')",
        "silent": "pass",
    }
    for name, text in scripts.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    one, missed, fails, silent = (Measurement(name, (f"{name}.py",), f"All {name}") for name in scripts)
    away = Measurement("away", ("well.py",), needs=("en/no_such_set",))
    sections = (
        Section("Two things", "What is measured.", "2 ×", (one, missed)),
        Section("Others", "More.", "3 ×", (fails, silent, away)),
    )
    monkeypatch.setattr(page, "SECTIONS", sections)
    monkeypatch.setattr(page, "ROOT", tmp_path)
    return tmp_path


def run(world: Path, *words: str) -> tuple[int, str]:
    """The exit code, and the page."""
    target = world / "docs" / "benchmarks.md"
    code = page.main(["--results", str(world / "results"), "--page", str(target), *words])
    return code, target.read_text(encoding="utf-8")


def test_each_is_measured_once_and_told(world: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, told = run(world)
    out, errors = capfd.readouterr()
    assert code == 1
    assert "failed: fails, silent" in errors
    assert "away is left out: no ../shared/data/en/no_such_set beside this folder" in errors
    assert "| 1 | 2 |" in out
    assert "half a table" not in told
    assert "## Two things\n\nWhat is measured.\n\nWanted: 2 ×.\n" in told
    assert "### All well\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n#### More\n" in told
    assert "    command    python well.py\n" in told
    assert "0.5 × only" in told
    assert "## Others" not in told
    assert told.endswith("Not measured yet: fails, silent, away.\n")
    assert sorted(path.name for path in (world / "results").iterdir()) == ["missed.md", "well.md"]

    for name in ("well", "missed", "silent"):
        (world / f"{name}.py").write_text("print('anew')", encoding="utf-8")
    code, told = run(world, "--only", "well", "missed", "silent")
    assert code == 0
    assert told.count("anew") == 1
    assert "| 1 | 2 |" in told


def test_the_page_alone_comes_from_what_is_there(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "results").mkdir()
    text = "date  2026-01-02\nmachine\tBig, 64 threads\ncommand python x.py --rounds 5\nnote by hand\n\n| a |\n"
    (world / "results" / "well.md").write_text(text, encoding="utf-8")
    code, told = run(world, "--write")
    assert code == 0
    assert (
        "### All well\n\n| a |\n\n    date       2026-01-02\n    machine    Big, 64 threads\n"
        "    command    python x.py --rounds 5\n    note       by hand\n" in told
    )
    assert "1 of 5 measurements" in capsys.readouterr().out
    assert not (world / "results" / "missed.md").exists()


def test_a_result_without_its_head_is_refused(world: Path) -> None:
    (world / "results").mkdir()
    (world / "results" / "well.md").write_text("date 2026-01-02\n\n| a |\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"well\.md does not begin with a line for machine and for command; wanted"):
        run(world, "--write")


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    kept = page.Result({"date": "2026-01-02", "machine": "A B", "command": "python x.py"}, "| a |\n\nsaid: b")
    page.keep(tmp_path / "new" / "x.md", kept)
    assert page.read(tmp_path / "new" / "x.md") == kept


def test_the_plan_names_scripts_that_are_there_and_know_their_flags() -> None:
    measurements = [one for section in SECTIONS for one in section.measurements]
    assert len({one.name for one in measurements}) == len(measurements) > 15
    for section in SECTIONS:
        assert all(one.title for one in section.measurements) or len(section.measurements) == 1
    for one in measurements:
        text = (Path(page.__file__).parent.parent / one.command[0]).read_text(encoding="utf-8")
        flags = [word for word in one.command if word.startswith("--")]
        assert all(f'"{flag}"' in text for flag in flags), one.name
