"""What users give by mistake: one line that says what and where, exit code 2, and nothing written."""

from __future__ import annotations

import contextlib
import json
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.toys import write_records

from bothways.tasks import TRAINABLE

ROW = '{"text": "a lovely day", "label": "good"}\n'
OTHER = '{"text": "an awful day", "label": "bad"}\n'


TAGGED = {"tokens": ["Ada", "saw", "it"], "tags": ["B-A0", "O", "O"]}
BAD_RECORDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {  # a right record, what spoils it, what is told
    "classify": ({"text": "a day", "label": "good"}, {"label": None}, '"label" is None; one label was wanted'),
    "pair": (
        {"text_a": "a day", "text_b": "a film", "label": "yes"},
        {"text_b": ["a", "film"]},
        "'text_b' is a list, wanted a string",
    ),
    "similarity": (
        {"text_a": "a day", "text_b": "a film", "label": 2.5},
        {"label": "near"},
        "'label' is a string ('near'), wanted a number",
    ),
    "tag": (TAGGED, {"tags": ["B-A0", "O"]}, '"tokens" has 3 words, but "tags" has 2'),
    "segment": ({"words": ["他", "喜欢"]}, {"words": []}, '"words" holds no word'),
    "roles": (TAGGED | {"predicate": 1}, {"predicate": 3}, "the predicate is word 3, but the 3 words are counted"),
    "slots": (TAGGED | {"intent": "See"}, {"tags": ["O", "I-A0", "O"]}, "word 2 has the tag 'I-A0' after 'O'"),
    "qa": (
        {"question": "who?", "context": "Ada saw it", "answers": {"text": ["Ada"], "answer_start": [0]}},
        {"answers": {"text": ["Ada"], "answer_start": [4]}},
        "answer 1, 'Ada', is not at answer_start 4: there stands 'saw'",
    ),
    "choice": (
        {"question": "who?", "choices": ["Ada", "it"], "label": 0},
        {"label": 2},
        '"label" is 2, but the 2 choices are counted from 0: 0 to 1',
    ),
    "generate": ({"source": "a day", "target": "one day"}, {"target": 7}, "'target' is a whole number ('7'), wanted"),
    "embed": ({"text_a": "a day", "text_b": "one day"}, {"text_b": None}, "'text_b' is null, wanted a string"),
}


@pytest.fixture
def refused(command, tmp_path: Path) -> Callable[..., str]:
    """The one line that a command prints when it is refused; the folder it was to write is not there."""

    def run(*words: object, out: Path | None = None) -> str:
        before = snapshot(tmp_path)
        told = command(*words)
        assert told.code == 2, told
        assert told.out == ""
        assert "Traceback" not in told.err
        errors = [line for line in told.err.splitlines() if line.startswith("bothways: error: ")]
        assert len(errors) == 1
        assert told.err.splitlines()[-1] == errors[0]
        assert snapshot(tmp_path) == before, "something was written"
        return errors[0].removeprefix("bothways: error: ")

    return run


def snapshot(folder: Path) -> dict[Path, int]:
    """All there is; a file that was written again has another time."""
    return {path: 0 if path.is_dir() else path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def finetune(made, refused, tmp_path: Path) -> Callable[..., str]:
    """Refused fine-tuning on a file with this content."""

    def run(content: bytes | str, *words: object, name: str = "train.jsonl") -> str:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        out = tmp_path / "run"
        return refused(
            *("finetune", "classify", "--model", made.pretrained, "--train", tmp_path / name, "--out", out), *words
        )

    return run


# ------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        ((ROW + OTHER + '{"text": "cut o').encode(), "train.jsonl:3: "),
        ((ROW + '{"text": "a"\n' + OTHER).encode(), "train.jsonl:2: "),
        ((ROW + '["a", "list"]\n').encode(), "train.jsonl:2: "),
        ('{"text": "很好的电影", "label": "good"}\n'.encode("gbk"), "iconv -f "),
        ((ROW + '{"txt": "a", "label": "bad"}\n').encode(), "train.jsonl:2: no field 'text'"),
        ((ROW + '{"text": "a"}\n').encode(), "train.jsonl:2: no field 'label'"),
        ((ROW + '{"text": "  ", "label": "bad"}\n').encode(), "train.jsonl:2: the text is empty"),
        ((ROW + '{"text": 7, "label": "bad"}\n').encode(), "train.jsonl:2: 'text' is a whole number ('7'), wanted a"),
        ((ROW + '{"text": "a", "label": null}\n').encode(), "train.jsonl:2: "),
        ((ROW + ROW).encode(), "all 2 records have the label"),
    ],
)
def test_bad_records(content: bytes, told: str, finetune):
    assert told in finetune(content)


def test_bad_records_of_every_task_are_here():
    assert set(BAD_RECORDS) | {"multi"} == set(TRAINABLE)


@pytest.mark.parametrize("task", BAD_RECORDS)
def test_a_bad_record_of_each_task(task: str, made, refused, tmp_path: Path):
    """The second line of three is wrong: before anything is written, it is named."""
    right, wrong, told = BAD_RECORDS[task]
    train = write_records(tmp_path / "train.jsonl", [right, right | wrong, right])
    out = ("--out", tmp_path / "run")
    line = refused("finetune", task, "--model", made.pretrained, "--train", train, *out)
    assert line.startswith(f"{train}:2: {told}"), line


def test_a_bad_record_of_several_tasks(made, refused, tmp_path: Path):
    """Each part names its own file."""
    right, wrong, told = BAD_RECORDS["tag"]
    train = write_records(tmp_path / "tags.jsonl", [right, right | wrong, right])
    write_records(tmp_path / "moods.jsonl", [json.loads(ROW), json.loads(OTHER)])
    (tmp_path / "run.toml").write_text(
        f'[tasks.mood]\ntask = "classify"\ntrain = "{tmp_path / "moods.jsonl"}"\n'
        f'[tasks.people]\ntask = "tag"\ntrain = "{train}"\n',
        encoding="utf-8",
    )
    words = ("--config", tmp_path / "run.toml", "--model", made.pretrained, "--out", tmp_path / "run")
    assert refused("finetune", "multi", *words).startswith(f"{train}:2: {told}")


def test_a_missing_file_and_a_column_s_nearest_name(made, refused, finetune, tmp_path: Path):
    shutil.copy(made.train, tmp_path / "train.jsonl")
    line = refused(
        "finetune", "classify", "--model", made.pretrained, "--train", tmp_path / "trian.jsonl", "--out", tmp_path / "o"
    )
    assert "trian.jsonl: " in line
    assert "train.jsonl" in line.replace("trian", "")
    line = finetune("sentence,label\na day,good\nb day,bad\n", name="train.csv")
    assert "train.csv:2: no field 'text'; there are " in line
    assert "say --columns.text " in line


def test_a_damaged_gz(finetune):
    import gzip

    line = finetune(gzip.compress((ROW * 400 + OTHER).encode())[:60], name="train.jsonl.gz")
    assert "train.jsonl.gz" in line


def test_a_byte_order_mark_does_no_harm(made, command, tmp_path: Path):
    (tmp_path / "dev.jsonl").write_bytes(b"\xef\xbb\xbf" + (ROW + OTHER).encode())
    assert command("evaluate", made.finetuned, "--data", tmp_path / "dev.jsonl").code == 0


@pytest.mark.parametrize("length", [("--epochs", 1), ("--minutes", 0.1)])
def test_records_with_nothing_to_learn_from(length: tuple[str, object], made, refused, tmp_path: Path):
    rows = [{"text_a": "a day", "text_b": "a lovely day", "label": "yes"}] * 3
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--train", tmp_path / "train.jsonl", "--embed.positive", "Yes", *length, "--out", tmp_path / "run")
    line = refused("finetune", "embed", "--model", made.pretrained, *words)
    assert line == (
        "none of the 3 training records has anything to learn from (3: another label than embed.positive: left out)"
    )


def test_mistakes_in_dev_are_found_before_training(made, finetune, tmp_path: Path):
    dev = tmp_path / "dev.jsonl"
    dev.write_text(ROW + '{"text": "a", "label": "goood"}\n', encoding="utf-8")
    line = finetune(ROW + OTHER, "--dev", dev)
    assert "dev.jsonl:2: label 'goood' was not seen in training; known are bad, good" in line
    assert line.endswith("; did you mean 'good'?")
    dev.write_text(ROW + "{", encoding="utf-8")
    assert "dev.jsonl:2: " in finetune(ROW + OTHER, "--dev", dev)


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_bad_data_for_a_finished_model(verb: str, made, refused, tmp_path: Path):
    data = tmp_path / "data.jsonl"
    data.write_text(ROW + '{"text": ["a"], "label": "good"}\n', encoding="utf-8")
    out = ["--out", tmp_path / "out.jsonl"] if verb == "predict" else []
    assert "data.jsonl:2: 'text' is a list" in refused(verb, made.finetuned, "--data", data, *out)


def test_a_label_that_the_model_does_not_know(made, refused, tmp_path: Path):
    (tmp_path / "dev.jsonl").write_text('{"text": "a day", "label": "odd"}\n', encoding="utf-8")
    line = refused("evaluate", made.finetuned, "--data", tmp_path / "dev.jsonl")
    assert "dev.jsonl:1: label 'odd' was not seen in training; known are bad, good" in line


# -------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file holds no text"),
        ("很好的电影。\n".encode("gbk"), "iconv -f "),
        (b"word\n", "make no sequence to learn from"),
    ],
)
@pytest.mark.parametrize("verb", ["vocab", "pretrain"])
def test_bad_text(verb: str, content: bytes, told: str, made, refused, tmp_path: Path):
    (tmp_path / "text.txt").write_bytes(content)
    words: list[object] = [verb, "--text", tmp_path / "text.txt", "--out", tmp_path / "out"]
    if verb == "vocab" and b"word" in content:
        return  # enough for a vocabulary
    words += ["--vocab", made.vocab, "--steps", 2, "--corpus.workers", 1] if verb == "pretrain" else ["--size", 300]
    assert told in refused(*words)


@pytest.mark.parametrize("verb", ["vocab", "pretrain"])
def test_a_missing_field_among_several(verb: str, refused, tmp_path: Path):
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"source": "a", "target": "b"}\n{"source": "a", "targets": "b"}\n', encoding="utf-8")
    line = refused(verb, "--text", data, "--columns.text", "source,target", "--out", tmp_path / "out")
    assert line == (
        f"{data}:2: no column 'target' (from --columns.text); there are 'targets', 'source'; "
        f"did you mean --columns.text targets?"
    )


def test_bad_held_out_text_leaves_no_run(made, refused, tmp_path: Path):
    (tmp_path / "dev.txt").write_bytes(b"one line\n\xff\xfe\xfa\n")
    words = ["pretrain", "--text", made.text, "--vocab", made.vocab, "--dev", tmp_path / "dev.txt", "--steps", 2]
    assert "dev.txt:2: " in refused(*words, "--corpus.workers", 1, "--out", tmp_path / "out")
    (tmp_path / "out").mkdir()  # an empty folder of the user's stays, and stays empty
    assert "dev.txt:2: " in refused(*words, "--corpus.workers", 1, "--out", tmp_path / "out")
    assert "dev.txt:2: " in refused(*words, "--corpus.workers", 1, "--out", tmp_path / "out" / "run")


def test_a_vocabulary_too_small_for_its_letters(made, refused, tmp_path: Path):
    line = refused("vocab", "--text", made.text, "--size", 20, "--out", tmp_path / "out")
    assert "a vocabulary of 20 is too small" in line
    assert line.endswith("or more (--size; pretrain: --vocab-size)")


def test_the_folder_that_one_is_in(made, refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is put in place whole would leave the user in a folder that is no more."""
    monkeypatch.chdir(tmp_path)
    assert "the folder that you are in" in refused("vocab", "--text", made.text, "--out", ".")
    assert "the folder that you are in" in refused("convert", made.finetuned, ".")


# ------------------------------------------------------------------------------------------------- models


def test_weights_that_do_not_fit(made, refused, tmp_path: Path):
    model = shutil.copytree(made.finetuned / "model", tmp_path / "model")
    raw = json.loads((model / "config.json").read_text(encoding="utf-8"))
    wrong = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "vocab_size": raw["vocab_size"] + 1}
    for key, value in wrong.items():
        (model / "config.json").write_text(json.dumps(raw | {key: value}), encoding="utf-8")
        line = refused("predict", model, "a day")
        assert str(model) in line
        assert "shape" in line or "missing" in line
    (model / "config.json").write_text(json.dumps(raw | {"vocab_size": 10}), encoding="utf-8")
    assert "config.json says vocab_size 10; they belong to different models" in refused("predict", model, "a day")


def test_a_missing_weight_is_named(made, refused, tmp_path: Path):
    model = shutil.copytree(made.finetuned / "model", tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    name = "bert.encoder.layer.1.attention.self.query.weight"
    save_file({key: value for key, value in weights.items() if key != name}, model / "model.safetensors")
    assert name in refused("predict", model, "a day")


class _Canary:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("opened"),))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_is_never_opened(name: str, made, refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    model = shutil.copytree(made.finetuned / "model", tmp_path / "model")
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(_Canary()))
    assert "is a pickle" in refused("predict", model, "a day")
    assert not Path("opened").exists()


def test_truncated_weights(made, refused, tmp_path: Path):
    model = shutil.copytree(made.finetuned / "model", tmp_path / "model")
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert f"{path}: the weights can't be read" in refused("predict", model, "a day")


def test_no_model(made, refused, tmp_path: Path):
    line = refused("predict", tmp_path / "nothing", "a day")
    assert line == f"{tmp_path / 'nothing'}: there is no such model folder"
    line = refused("evaluate", made.pretrained, "--data", made.dev)
    assert "this model was pre-trained but has no task yet; fine-tune it first (bothways finetune TASK --model" in line


# -------------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["finetune"], "which task? bothways finetune TASK …, TASK being one of classify"),
        (["finetune", "--model", "x"], "which task?"),
        (["finetune", "clasify"], "there is no task 'clasify'; known are classify, pair"),
        (["finetune", "clasify"], "embed, generate, multi; did you mean classify?"),
        (["finetune", "pretrain"], "it is a verb: bothways pretrain"),
        (["finetune", "classify", "--train", "t", "--out", "o", "--epoch", "2"], "did you mean --epochs?"),
        (["finetune", "classify", "--train", "t", "--out", "o", "--optim.rl", "2"], "did you mean --optim.lr?"),
        (["finetune", "classify", "--train", "t", "--out", "o", "--seeds", "0"], "seeds is 0; it must be at least 1"),
        (["finetune", "classify", "--train", "t", "--out", "o", "--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["finetune", "classify", "--train", "t", "--out", "o", "--epochs", "x"], "--epochs is 'x'; wanted a whole"),
        (["finetune", "classify", "--train", "t", "--out", "o", "--optim.lr", "-1"], "optim.lr is -1"),
        (["finetune", "classify", "--train", "t", "--out", "o", "--optim.eps", "-1"], "optim.eps is -1.0; it must be"),
        (["finetune", "classify", "--train", "t", "--out", "o", "--optim.weight-decay", "-1"], "optim.weight_decay is"),
        (["finetune", "classify", "--train", "t"], "missing: --out"),
        (["finetune", "--config", "none.toml"], "none.toml: No such file or directory; wanted a TOML file of settings"),
        (["pretrain", "--text", "t", "--out", "o", "--steps", "3", "--epochs", "1"], "found --steps and --epochs"),
        (["pretrain", "--text", "t", "--out", "o", "--steps", "0"], "steps is 0; it must be above 0"),
        (["pretrain", "--text", "t", "--out", "o", "--checkpoint-minutes", "-1"], "checkpoint_minutes is -1.0"),
        (["pretrain", "--text", "t", "--out", "o", "--batching.max-length", "9"], "did you mean --corpus.max-length?"),
        (["predict", "m"], "give texts, or a file by --data F"),
        (["predict", "m", "a text", "--data", "f"], "give texts, or a file by --data F"),
        (["predict", "m", "a text", "--columns.text", "t"], "--columns is for the file of --data; leave it out"),
        (["evaluate", "m"], "missing: --data"),
        (["evaluate", "m", "--data", "d", "--precision", "float23"], "did you mean float32?"),
        (["predict", "m", "a text", "--seed", "-1"], "seed is -1"),
        (
            ["predict", "m", "a text", "--url", "http://h", "--alignment", "a.html"],
            "is drawn here, by the model itself",
        ),
        (["predict", "m", "a text", "--devise", "cpu"], "did you mean --device?"),
    ],
)
def test_bad_words(words: list[str], told: str, refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert told in refused(*words)


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("beams", 0, "beams is 0; it must be at least 1"),
        ("beams", "two", "beams is 'two'; wanted a whole number"),
        ("beam", 4, "generate takes no option 'beam'; known are beams, early_stopping"),
    ],
)
def test_settings_of_decoding_that_can_not_be(
    verb: str, flag: str, value: object, told: str, writer: Path, refused, tmp_path: Path
):
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"source": "a day", "target": "a film"}\n', encoding="utf-8")
    words = ["--data", data, f"--generate.{flag}", value]
    words += ["--out", tmp_path / "out.jsonl"] if verb == "predict" else []
    assert refused(verb, writer, *words).startswith(told)


def test_patience_needs_dev_records(finetune):
    line = finetune(ROW + OTHER, "--patience", 1)
    assert line.startswith("--patience waits for a better dev score, and there are no dev records; give --dev")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--columns.text", "body"], "--columns renames fields of records"),
        (["--against", "builtin"], "--against compares on records"),
        (["--precision", "all"], "--precision all times answers to records"),
    ],
)
def test_what_is_for_records_is_refused_for_a_folder_to_rank(words: list[str], told: str, refused, tmp_path: Path):
    (tmp_path / "corpus").mkdir()
    line = refused("evaluate", "no model", "--data", tmp_path / "corpus", *words)  # told before a model is looked for
    assert line.startswith(told)
    assert f"{tmp_path / 'corpus'} is a folder" in line


def test_an_unknown_size_names_the_nearest(made, refused, tmp_path: Path):
    line = refused("pretrain", "--text", made.text, "--model", "smal", "--out", tmp_path / "out")
    assert line.startswith("'smal' is neither a model folder nor a size; sizes are tiny, mini, small")
    assert line.endswith("did you mean small?")


@pytest.mark.parametrize("verb", ["vocab", "pretrain", "finetune", "seeds", "predict"])
def test_what_exists_is_not_written_over(verb: str, made, refused, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "kept.txt").write_text("mine", encoding="utf-8")
    train = ["finetune", "classify", "--model", made.pretrained, "--train", made.train]
    words = {
        "vocab": ["vocab", "--text", made.text],
        "pretrain": ["pretrain", "--text", made.text],
        "finetune": train,
        "seeds": [*train, "--seeds", 2],
        "predict": ["predict", made.finetuned, "a day"],
    }[verb]
    assert f"--out {out} exists already; give another " in refused(*words, "--out", out)


# ---------------------------------------------------------------------------------------------- full disk


@contextlib.contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, which fails as a full disk does: in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("verb", ["vocab", "predict"])
def test_a_full_disk_leaves_nothing_half_written(verb: str, made, refused, tmp_path: Path):
    words = {
        "vocab": ["vocab", "--text", made.text, "--size", 300],
        "predict": ["predict", made.finetuned, "--data", made.dev],
    }[verb]
    with full_disk(500):
        assert "File too large; " in refused(*words, "--out", tmp_path / "out")


def test_a_disk_that_fills_up_while_training_can_be_resumed(made, command, tmp_path: Path):
    out = tmp_path / "run"
    words = ["finetune", "classify", "--model", made.pretrained, "--train", made.train, "--batch", 8, "--out", out]
    with full_disk(500_000):
        told = command(*words)
    assert told.code == 2
    assert told.err.splitlines()[-1].endswith(
        "/model.safetensors': File too large; raise the limit on a file's size, or write elsewhere"
    )
    assert "Traceback" not in told.err
    assert [path.name for path in (out / "checkpoints").iterdir()] == []
    assert command(*words, "--resume").code == 0
