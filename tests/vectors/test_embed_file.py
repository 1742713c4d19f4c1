"""A file of records to a file of vectors: formats, going on after a kill, and what is refused."""

from __future__ import annotations

import datetime
import io
import json
import random
import shutil
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from bothways.data.records import read_records
from bothways.errors import DataError, Stopped
from bothways.infer.predictor import load
from bothways.models.model import fresh, save
from bothways.tasks.segment import SegmentSettings, SegmentTask
from bothways.vectors import embed as module
from bothways.vectors import formats, progress
from bothways.vectors.embed import embed_file, read_vectors


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(module, "PART", 8)
    monkeypatch.setattr(module, "PART_OF_WORDS", 4)


def rows(texts):
    return [{"id": f"t{number}", "text": text, "n": number} for number, text in enumerate(texts)]


def test_npy_is_what_python_gives(command, folder, predictor, jsonl, texts, tmp_path):
    code, out, err = command("embed", folder, "--data", jsonl(rows(texts)), "--out", tmp_path / "v.npy")
    assert (code, err) == (0, "")
    assert out == f"50 records, vectors of 16 numbers, in {tmp_path / 'v.npy'}\n"
    found = np.load(tmp_path / "v.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, predictor.embed(texts), atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "v.npy"]


@pytest.mark.parametrize("options", [(), ("--layers", "concat:-2:"), ("--level", "pair")])
def test_in_int8_the_vectors_are_near(command, folder, jsonl, texts, tmp_path, options):
    fields = ("text_a", "text_b") if "pair" in options else ("text",)
    data = jsonl([dict.fromkeys(fields, text) for text in texts])
    for precision in ("float32", "int8"):
        words = ("--data", data, "--out", tmp_path / f"{precision}.npy", "--precision", precision, *options)
        assert command("embed", folder, *words)[0] == 0
    plain, whole = np.load(tmp_path / "float32.npy"), np.load(tmp_path / "int8.npy")
    cosines = (plain * whole).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(whole, axis=1)
    assert 0.99 < cosines.min() < 1 - 1e-7


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_records_keep_their_fields(command, folder, predictor, jsonl, texts, tmp_path, ending):
    out = tmp_path / f"v{ending}"
    assert command("embed", folder, "--data", jsonl(rows(texts)), "--out", out)[0] == 0
    records, vectors = read_vectors(out)
    assert [record.fields for record in records] == rows(texts)
    np.testing.assert_allclose(vectors, predictor.embed(texts), atol=1e-6)
    if ending == ".parquet":
        schema = parquet.read_schema(out)
        assert str(schema.field("vector").type.value_type) == "float"


def test_text_and_csv_go_in_too(command, folder, predictor, texts, tmp_path):
    (tmp_path / "data.txt").write_text("\n".join(texts))
    (tmp_path / "data.csv").write_text("body\n" + "\n".join(texts))
    assert command("embed", folder, "--data", tmp_path / "data.txt", "--out", tmp_path / "a.npy")[0] == 0
    words = ("--data", tmp_path / "data.csv", "--columns.text", "body", "--out", tmp_path / "b.npy")
    assert command("embed", folder, *words)[0] == 0
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.parametrize(("level", "least"), [("sentence", 3), ("word", 3), ("token", 3), ("pair", 5)])
def test_windows_of_the_smallest_size(command, folder, jsonl, tmp_path, level, least):
    data = jsonl([{"text_a": "we saw it", "text_b": "今天", "text": "we saw it with 我们"}] * 3)
    words = ("embed", folder, "--data", data, "--level", level, "--out", tmp_path / "v.jsonl", "--max-length")
    code, out, err = command(*words, least - 1)
    assert (code, out) == (2, "")
    assert f"wanted at least {least}" in err
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]  # nothing that would be in the next run's way
    assert command(*words, least)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()]
    parts = {"word": 5, "token": 6}.get(level)
    assert [len(line["parts"]) if parts else None for line in lines] == [parts] * 3


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("level", ["word", "token", "character"])
def test_parts_with_their_places(command, folder, predictor, jsonl, tmp_path, level, ending):
    texts = ["the film, 今天", "", "我们去北京 abc"] * 3
    out = tmp_path / f"v{ending}"
    code, told, err = command("embed", folder, "--data", jsonl(rows(texts)), "--out", out, "--level", level)
    assert code == 0, err
    assert "3 of 9 texts: the text is empty: it has no parts\n" in told
    if ending == ".jsonl":
        found = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        found = parquet.read_table(out).to_pylist()
    with pytest.warns(UserWarning, match="empty"):
        wanted = predictor.embed(texts, level=level)
    for record, parts, text in zip(found, wanted, texts, strict=True):
        assert record["text"] == text
        assert [part["text"] for part in record["parts"]] == parts.texts
        assert [[part["start"], part["end"]] for part in record["parts"]] == parts.offsets.tolist()
        np.testing.assert_allclose(
            np.array([part["vector"] for part in record["parts"]]).reshape(-1, 16), parts.vectors, atol=1e-6
        )


def test_pairs_together_and_apart(command, folder, predictor, jsonl, texts, tmp_path):
    pairs = list(zip(texts[:20], texts[20:40], strict=True))
    data = jsonl([{"text_a": a, "text_b": b} for a, b in pairs])
    assert command("embed", folder, "--data", data, "--out", tmp_path / "a.npy")[0] == 0
    assert command("embed", folder, "--data", data, "--out", tmp_path / "b.npy", "--level", "pair")[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), predictor.embed(pairs), atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), predictor.embed(pairs, level="pair"), atol=1e-6)


def test_fields_of_any_kind_fit_into_a_table(command, folder, jsonl, tmp_path):
    mixed = [{"text": "a", "x": 1, "y": [1], "z": None}, {"text": "b", "x": 1.5, "w": True}, {"text": "c", "y": "s"}]
    assert command("embed", folder, "--data", jsonl(mixed), "--out", tmp_path / "v.parquet")[0] == 0
    table = parquet.read_table(tmp_path / "v.parquet").drop_columns(["vector"]).to_pylist()
    assert table == [
        {"text": "a", "x": 1.0, "y": "[1]", "z": None, "w": None},
        {"text": "b", "x": 1.5, "y": None, "z": None, "w": True},
        {"text": "c", "x": None, "y": "s", "z": None, "w": None},
    ]


def test_words_and_numbers_that_a_table_can_not_hold(command, folder, tmp_path):
    data, out = tmp_path / "data.jsonl", tmp_path / "v.parquet"
    data.write_text(json.dumps({"text": "a \ud83d film", "n": 2**64}) + '\n{"text": "day", "n": 1}\n')
    code, _, err = command("embed", folder, "--data", data, "--out", out, "--level", "word", "--quiet")
    assert (code, err) == (0, "")
    (first, second) = read_records(out)
    assert (first.fields["n"], second.fields["n"]) == (str(2**64), "1")
    assert "\ufffd" in [part["text"] for part in first.fields["parts"]]


def test_what_json_has_not_is_plain_text(predictor, tmp_path):
    day, price = datetime.date(2024, 2, 1), Decimal("1.50")
    parquet.write_table(
        pa.table({"text": ["film"], "day": [day], "price": [price], "tags": [["a"]]}), tmp_path / "data.parquet"
    )
    for ending in (".parquet", ".jsonl"):
        embed_file(predictor.embedder(), tmp_path / "data.parquet", tmp_path / f"v{ending}", identity={}, quiet=True)
        (record,) = read_records(tmp_path / f"v{ending}")
        assert (record.fields["day"], record.fields["price"]) == ("2024-02-01", "1.50")
    assert parquet.read_table(tmp_path / "v.parquet")["tags"].to_pylist() == ['["a"]']


@pytest.mark.parametrize("level", ["sentence", "word"])
def test_more_numbers_than_a_row_group_holds(predictor, jsonl, texts, tmp_path, monkeypatch, level):
    embedder, data = predictor.embedder(level=level), jsonl(rows(texts))
    embed_file(embedder, data, tmp_path / "whole.parquet", identity={}, quiet=True)
    monkeypatch.setattr(formats, "MOST", 50)
    embed_file(embedder, data, tmp_path / "halved.parquet", identity={}, quiet=True)
    whole, halved = (parquet.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "halved"))
    assert whole.to_pylist() == halved.to_pylist()
    assert parquet.read_metadata(tmp_path / "halved.parquet").num_row_groups > 13


@pytest.mark.parametrize(
    ("words", "own", "gone"),
    [
        (("--out", "v.jsonl"), ("vector", "parts"), "'vector'"),
        (("--out", "v.parquet"), ("vector", "parts"), "'vector'"),
        (("--out", "v.jsonl", "--level", "word"), ("vector", "parts"), "'parts'"),
        (("--out", "v.npy"), ("vector", "parts"), None),
        (("--out", "v.jsonl"), ("parts",), None),
    ],
)
def test_fields_that_give_way_are_told(command, folder, jsonl, texts, tmp_path, monkeypatch, words, own, gone):
    monkeypatch.chdir(tmp_path)
    data = jsonl([row | dict.fromkeys(own, "mine") for row in rows(texts)])
    out = command("embed", folder, "--data", data, *words).out
    told = f"the records' own {gone} gave way to what is written under that name\n"
    assert out.splitlines(keepends=True)[1:] == ([told] if gone else [])


@pytest.fixture
def segmenter(predictor, tmp_path):
    """A segmentation model, saved."""
    task = SegmentTask(SegmentSettings(), [])
    return save(
        fresh(predictor.model.config, predictor.model.tokenizer, task), tmp_path.parent / f"{tmp_path.name}-words"
    )


def test_words_of_a_segmentation_model(command, folder, predictor, segmenter, jsonl, tmp_path):
    texts, out = ["我们去北京看电影", "", "今天 天气很好"], tmp_path / "v.jsonl"
    words = ("--level", "word", "--words", segmenter)
    code, told, err = command("embed", folder, "--data", jsonl(rows(texts)), "--out", out, *words)
    assert code == 0, err
    assert "1 of 3 texts: the text is empty" in told
    found = [json.loads(line) for line in out.read_text().splitlines()]
    by = load(segmenter, device="cpu")
    for record, text in zip(found, texts, strict=True):
        wanted = by.predict([text])[0]["words"] if text else []
        assert [part["text"] for part in record["parts"]] == wanted
    with pytest.warns(UserWarning, match="empty"):
        parts = predictor.embed(texts, level="word", words=by)
    np.testing.assert_allclose([part["vector"] for part in found[0]["parts"]], parts[0].vectors, atol=1e-6)
    plain = command("embed", folder, "--data", jsonl(rows(texts)), "--out", tmp_path / "v.npy", "--words", segmenter)
    assert plain[0] == 0, plain


def test_single_texts_and_pairs_in_one_table(command, folder, predictor, jsonl, texts, tmp_path):
    mixed = [{"text": text} for text in texts[:8]]  # a part of its own: only the second has pairs
    mixed += [{"text_a": a, "text_b": b} for a, b in zip(texts[:8], texts[8:16], strict=True)]
    assert command("embed", folder, "--data", jsonl(mixed), "--out", tmp_path / "v.parquet")[0] == 0
    vectors = parquet.read_table(tmp_path / "v.parquet")["vectors"].to_pylist()
    assert [len(own) for own in vectors] == [1] * 8 + [2] * 8
    np.testing.assert_allclose([own[0] for own in vectors], predictor.embed(texts[:8] * 2), atol=1e-6)


@pytest.mark.parametrize("live", [True, False])
def test_progress_is_told(live, monkeypatch):
    class Stream(io.StringIO):
        def isatty(self):
            return live

    clock = iter([0.0, 1.0, 40.0, 41.0, 50.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    out = Stream()
    counted = progress.Counted("records", quiet=False, out=out)
    for count in (10, 2000, 2050):
        counted.at(count)
    counted.end(2500)
    if live:  # one line that is written over
        assert out.getvalue().count("\n") == 1
        assert out.getvalue().endswith("\r2,500 records  50 a second\x1b[K\n")
    else:  # a line every half minute
        assert out.getvalue() == "2,000 records  50 a second\n"


class Killed(BaseException):
    """A kill, as far as Python can play one."""


@pytest.mark.parametrize("ending", [".npy", ".jsonl", ".parquet"])
def test_killed_ten_times_the_output_is_the_same(predictor, jsonl, texts, tmp_path, ending, monkeypatch):
    data, draw = jsonl(rows(texts)), random.Random(3)
    embedder = predictor.embedder()
    whole = tmp_path / "whole" / f"v{ending}"
    embed_file(embedder, data, whole, identity={}, quiet=True)
    computed: list[str] = []
    answers, savez = embedder.engine.answers, np.savez
    out = tmp_path / "killed" / f"v{ending}"
    for _ in range(10):
        if out.exists():
            break
        left = draw.randint(0, 2)

        def dying(examples, *, left=[left], **options):  # noqa: B006 (the default is the counter)
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return answers(examples, **options)

        def half_written(file, *args, **arrays):
            if draw.random() < 0.3:
                file.write(b"PK half of a file")
                raise Killed
            savez(file, *args, **arrays)
            computed.append(arrays["told"].tobytes().decode())

        monkeypatch.setattr(embedder.engine, "answers", dying)
        monkeypatch.setattr(np, "savez", half_written)
        try:
            embed_file(embedder, data, out, identity={}, quiet=True)
        except Killed:
            assert not out.exists()
    monkeypatch.undo()
    monkeypatch.setattr(module, "PART", 8)
    if not out.exists():
        done = embed_file(embedder, data, out, identity={}, quiet=True)
        assert done.reused == 8 * len(computed)
    assert len(computed) <= 7, "a part that was there has been computed again"
    assert out.read_bytes() == whole.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("ending", [".npy", ".jsonl", ".parquet"])
def test_killed_while_the_output_is_written_leaves_nothing_behind(
    predictor, jsonl, texts, tmp_path, ending, monkeypatch
):
    embedder, data = predictor.embedder(), jsonl(rows(texts))
    out = tmp_path / "killed" / f"v{ending}"
    write = (writer := module.WRITERS[ending]).write

    def dying(self, block):
        write(self, block)
        if block.records[0].fields["n"] >= 16:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write", dying)
        patch.setattr(type(out), "unlink", lambda *_, **__: None)  # a killed process does not tidy up
        with pytest.raises(Killed):
            embed_file(embedder, data, out, identity={}, quiet=True)
    assert [path.name for path in out.parent.iterdir()] == [f".v{ending}.parts"]
    assert embed_file(embedder, data, out, identity={}, quiet=True).reused == 50
    embed_file(embedder, data, tmp_path / f"whole{ending}", identity={}, quiet=True)
    assert out.read_bytes() == (tmp_path / f"whole{ending}").read_bytes()
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_records_that_changed_meanwhile_are_computed_anew(predictor, jsonl, texts, tmp_path, monkeypatch):
    embedder = predictor.embedder()
    data = jsonl([*rows(texts), {"text": 7}])
    with pytest.raises(Exception, match=r"data\.jsonl:51: 'text' is a whole number"):
        embed_file(embedder, data, tmp_path / "v.npy", identity={}, quiet=True)
    mended = [*rows(texts), {"text": "seven"}]
    mended[20]["text"] = "another"
    jsonl(mended)
    done = embed_file(embedder, data, tmp_path / "v.npy", identity={}, quiet=True)
    assert (done.records, done.reused) == (51, 40)  # of the first six parts, one changed
    wanted = predictor.embed([row["text"] for row in mended])
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), wanted, atol=1e-6)


@pytest.mark.parametrize("change", ["other", "longer", "shorter"])
def test_a_file_that_changes_while_it_is_embedded(predictor, jsonl, texts, tmp_path, monkeypatch, change):
    embedder, data = predictor.embedder(), jsonl(rows(texts))
    changed = {"other": rows(texts[::-1]), "longer": rows([*texts, "more"]), "shorter": rows(texts[:40])}[change]
    assemble = module._assemble

    def late(*arguments):
        jsonl(changed)
        return assemble(*arguments)

    monkeypatch.setattr(module, "_assemble", late)
    with pytest.raises(DataError, match=r"data\.jsonl: the file changed meanwhile; run the same again"):
        embed_file(embedder, data, tmp_path / "v.npy", identity={}, quiet=True)
    assert not (tmp_path / "v.npy").exists()
    monkeypatch.undo()
    monkeypatch.setattr(module, "PART", 8)
    embed_file(embedder, data, tmp_path / "v.npy", identity={}, quiet=True)
    wanted = predictor.embed([row["text"] for row in changed])
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), wanted, atol=1e-6)


def test_ctrl_c_says_how_to_go_on(predictor, jsonl, texts, tmp_path, monkeypatch):
    embedder = predictor.embedder()
    answers = embedder.engine.answers

    def stopping(examples, *, done=[0], **options):  # noqa: B006
        done[0] += 1
        if done[0] > 2:
            raise KeyboardInterrupt
        return answers(examples, **options)

    monkeypatch.setattr(embedder.engine, "answers", stopping)
    with pytest.raises(Stopped, match="stopped after 16 records; the same command goes on from there"):
        embed_file(embedder, jsonl(rows(texts)), tmp_path / "v.npy", identity={}, quiet=True)
    monkeypatch.setattr(embedder.engine, "answers", answers)
    assert embed_file(embedder, tmp_path / "data.jsonl", tmp_path / "v.npy", identity={}, quiet=True).reused == 16


def test_unfinished_work_of_another_run_is_not_mixed_in(command, folder, jsonl, texts, tmp_path):
    data = jsonl([*rows(texts), {"text": 7}])
    words = ("embed", folder, "--data", data, "--out", tmp_path / "v.npy")
    assert command(*words)[0] == 2
    assert (tmp_path / ".v.npy.parts").is_dir()
    code, out, err = command(*words, "--pooling", "cls")
    assert (code, out) == (2, "")
    assert err == (
        f"bothways: error: {tmp_path / '.v.npy.parts'} holds the unfinished work of another run (its task differ); "
        "finish that one with its own command, remove the folder, or give another --out\n"
    ).replace("its task differ", "its pooling, task differ")
    shutil.rmtree(tmp_path / ".v.npy.parts")
    jsonl(rows(texts))
    assert command(*words, "--pooling", "cls")[0] == 0


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "bothways.json"])
def test_unfinished_work_of_other_files_of_the_model(command, folder, jsonl, texts, tmp_path, file):
    model = shutil.copytree(folder, tmp_path / "model")
    words = ("embed", model, "--data", jsonl([*rows(texts), {"text": 7}]), "--out", tmp_path / "v.npy")
    assert command(*words)[0] == 2
    text = (model / file).read_text()
    # Of bothways.json what it says decides, not how it is laid out.
    (model / file).write_text(text.replace('"mean"', '"max"') if file == "bothways.json" else text + "\n")
    assert "(its files" in command(*words).err


def test_outputs_of_one_stem_do_not_share_their_parts(command, folder, jsonl, texts, tmp_path):
    data = jsonl([*rows(texts), {"text": 7}])
    for ending in ("npy", "jsonl"):
        options = ("--data", data, "--out", tmp_path / f"v.{ending}", "--pooling", "cls" if ending == "npy" else "mean")
        assert "'text' is a whole number" in command("embed", folder, *options).err
    assert {".v.npy.parts", ".v.jsonl.parts"} <= {path.name for path in tmp_path.iterdir()}


def test_two_at_once(predictor, jsonl, texts, tmp_path):
    (tmp_path / ".v.npy.parts").mkdir()
    with module.held(tmp_path / ".v.npy.parts"), pytest.raises(Exception, match="another process is writing to"):
        embed_file(predictor.embedder(), jsonl(rows(texts)), tmp_path / "v.npy", identity={}, quiet=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "v.bin"), "--out v.bin ends in .bin; wanted one of .npy, .jsonl, .parquet"),
        (("--out", "v.npy", "--level", "word"), "--out v.npy: texts have different numbers of parts; wanted .jsonl or"),
        (("--out", "v.npy", "--layers", "9"), "layers names 9, but the model has 2 layers (0 is the embeddings' out"),
        (
            ("--out", "v.jsonl", "--level", "word", "--long", "cut"),
            "every word of a long text has its vector, from win",
        ),
        (("--out", "v.npy", "--level", "words"), "--level is 'words'; wanted "),
    ],
)
def test_refused_before_anything_is_read(command, folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("a\n")
    code, out, err = command("embed", folder, "--data", "data.txt", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"bothways: error: {message}")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data.txt"]


def test_negative_layers_are_a_value(command, folder, predictor, jsonl, texts, tmp_path):
    words = ("--data", jsonl(rows(texts)), "--out", tmp_path / "v.npy")
    assert command("embed", folder, *words, "--layers", "-2", "--normalize", "no")[0] == 0
    wanted = predictor.embed(texts, layers=-2, normalize=False)
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), wanted, atol=1e-6)


def test_an_output_that_exists(command, folder, jsonl, texts, tmp_path):
    (tmp_path / "v.npy").write_text("mine")
    code, _, err = command("embed", folder, "--data", jsonl(rows(texts)), "--out", tmp_path / "v.npy")
    assert code == 2
    assert "exists already; give another file, or remove it first" in err
    assert (tmp_path / "v.npy").read_text() == "mine"
