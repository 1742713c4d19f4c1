"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.data.whole import remove, taken, whole


def test_a_file_takes_its_name_when_all_is_written(tmp_path: Path):
    target = tmp_path / "scores.json"
    target.write_text("old")
    with whole(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]


def _half(part: Path, kind: str) -> None:
    if kind == "folder":
        part.mkdir()
        (part / "inside").write_text("half")
    else:
        part.write_text("half")
    raise RuntimeError("half way")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_fails_leaves_nothing_and_harms_nothing(kind: str, tmp_path: Path):
    (tmp_path / "kept").write_text("old")
    with pytest.raises(RuntimeError, match="half way"), whole(tmp_path / "kept") as part:
        _half(part, kind)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "old"


def test_a_folder_replaces_an_empty_one_only(tmp_path: Path):
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine").write_text("old")
    with whole(tmp_path / "empty") as part:
        part.mkdir()
        (part / "inside").write_text("new")
    assert (tmp_path / "empty" / "inside").read_text() == "new"
    with pytest.raises(OSError, match="not empty"), whole(tmp_path / "full") as part:
        part.mkdir()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "full", "inside", "mine"]


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_disk_has_it_before_it_takes_its_name(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    monkeypatch.setattr("bothways.data.whole.sync", lambda path: done.append(path.name))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: done.append("renamed") or replace(self, to))
    with whole(tmp_path / "new" / "there" / "it") as part:  # whose folders are made
        if kind == "folder":
            part.mkdir()
            (part / "inside").write_text("x")
        else:
            part.write_text("x")
    before, after = done[: done.index("renamed")], done[done.index("renamed") + 1 :]
    assert before == (["inside"] if kind == "folder" else []) + [part.name]
    assert after == ["there"]


def test_where_no_folder_can_be_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "exists already; give another folder, or remove it first" in taken(tmp_path)
    assert "exists already" in taken(tmp_path / "file")
    assert "exists already" in taken(tmp_path / "link")
    assert taken(tmp_path / "empty") == taken(tmp_path / "new") == ""
    monkeypatch.chdir(tmp_path / "empty")
    assert taken(Path()) == ". is the folder that you are in; give another one"
