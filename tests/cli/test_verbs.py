"""The verbs one after the other, from text to predictions: what they write, print and promise."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.toys import write_records

from bothways.infer.predictor import load as load_predictor
from bothways.models.model import Model, load


def test_all_went_well(made):
    assert {verb: told.code for verb, told in made.told.items()} == dict.fromkeys(made.told, 0), made.told
    assert [told.err for told in made.told.values() if "error" in told.err or "Traceback" in told.err] == []


def test_vocab_writes_a_tokenizer(made):
    assert sorted(path.name for path in made.vocab.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    size = len((made.vocab / "vocab.txt").read_text(encoding="utf-8").splitlines())
    assert made.told["vocab"].out == f"{size} pieces in {made.vocab}\n"


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_a_run_folder_has_what_is_promised(verb: str, made):
    run: Path = made.pretrained if verb == "pretrain" else made.finetuned
    assert {"config.toml", "log.jsonl", "loss.png", "checkpoints", "model"} <= {path.name for path in run.iterdir()}
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [entry for entry in entries if "step" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, 5))
    assert all(math.isfinite(entry["loss"]) and entry["norm"] > 0 and entry["tokens"] > 0 for entry in steps)
    assert "finished" in entries[-1]
    assert load(run).config.hidden_size == 128
    assert [path for path in run.rglob(".*")] == []
    assert made.told[verb].out.splitlines()[-1].split() == ["model", str(run / "model")]


def test_finetune_prints_the_dev_scores(made):
    printed = dict(line.split(maxsplit=1) for line in made.told["finetune"].out.splitlines())
    assert {"accuracy", "macro_f1", "pr_auc", "records", "tokens", "tokens_dropped", "model"} <= set(printed)
    assert printed["records"] == "8"


def test_evaluate_json_is_one_object_with_every_metric(made, command):
    told = command("evaluate", made.finetuned, "--data", made.dev, "--json")
    assert (told.code, told.err) == (0, "")
    scores = json.loads(told.out)
    assert told.out.count("\n") == 1
    assert {
        "accuracy",
        "macro_f1",
        "pr_auc",
        "records",
        "tokens",
        "tokens_strided",
        "tokens_dropped",
        "seconds",
    } <= set(scores)
    assert (scores["records"], scores["tokens_dropped"]) == (8, 0)
    assert 0 <= scores["accuracy"] <= 1
    # the run's own scores are of the same model on the same records
    printed = dict(line.split(maxsplit=1) for line in made.told["finetune"].out.splitlines())
    assert printed["accuracy"] == f"{scores['accuracy']:.4f}"
    lines = command("evaluate", made.finetuned / "model", "--data", made.dev).out
    assert f"{'accuracy':24} {scores['accuracy']:.4f}\n" in lines


def test_evaluate_in_every_precision(made, command):
    told = command("evaluate", made.finetuned, "--data", made.dev, "--json", "--precision", "all")
    scores = json.loads(told.out)
    assert {"float32", "bfloat16"} <= set(scores)
    assert all("accuracy" in one for one in scores.values())


@pytest.mark.parametrize("verb", ["predict", "analyze"])
def test_what_soon_ends_maps_its_weights(verb: str, command, monkeypatch: pytest.MonkeyPatch):
    asked: list[bool] = []

    def noted(name: str, *, mapped: bool = False) -> Model:
        asked.append(mapped)
        return load(name, mapped=mapped)

    monkeypatch.setattr("bothways.infer.predictor.models.load", noted)
    assert command(verb, "builtin", "今天下雨。").code == 0
    assert asked == [True]


def test_predict_texts_data_and_file_agree(made, command, tmp_path: Path):
    rows = [json.loads(line) for line in made.dev.read_text(encoding="utf-8").splitlines()]
    texts = command("predict", made.finetuned, *(row["text"] for row in rows))
    data = command("predict", made.finetuned, "--data", made.dev)
    out = tmp_path / "predictions.jsonl"
    written = command("predict", made.finetuned, "--data", made.dev, "--out", out)
    assert (texts.code, data.code, written.code) == (0, 0, 0)
    assert texts.out == data.out == out.read_text(encoding="utf-8")
    assert written.out == f"8 predictions in {out}\n"
    predictions = [json.loads(line) for line in data.out.splitlines()]
    assert len(predictions) == 8
    for prediction in predictions:
        assert prediction["label"] in ("good", "bad")
        assert sum(prediction["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert prediction["score"] == pytest.approx(prediction["scores"][prediction["label"]], abs=1e-5)
        assert set(prediction["tokens"]) == {"kept"}


def test_a_pretrained_model_fills_masks(made, command):
    told = command("predict", made.pretrained, "the film was [MASK] and [MASK] ours")
    (prediction,) = [json.loads(line) for line in told.out.splitlines()]
    assert prediction.keys() == {"masks", "tokens"}
    assert prediction["tokens"]["kept"] >= 6
    masks = prediction["masks"]
    assert [(mask["start"], mask["end"]) for mask in masks] == [(13, 19), (24, 30)]
    assert all(len(mask["fillings"]) == 5 for mask in masks)


def test_of_several_heads_the_one_for_masks_answers_each_text_that_has_one(command, tmp_path: Path):
    texts = ["北京是中国的首[MASK]。", "今天下雨。"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    told = [command("predict", "builtin", *words).out for words in (texts, ["--data", tmp_path / "texts.txt"])]
    masked, other = map(json.loads, told[0].splitlines())
    assert masked.keys() == {"masks", "tokens"}
    assert {"words", "en_pos"} <= other.keys()
    assert told[1] == told[0].replace("<records>", str(tmp_path / "texts.txt"))  # where a text stands
    assert command("predict", "builtin", texts[0]).out == told[0].splitlines(keepends=True)[0]


def test_a_text_without_a_mask_is_told_where_it_stands(made, command, tmp_path: Path):
    (tmp_path / "texts.txt").write_text("the film was [MASK]\nthe film was warm\n", encoding="utf-8")
    told = command("predict", made.pretrained, "--data", tmp_path / "texts.txt")
    assert told.code == 2
    assert told.err == f"bothways: error: {tmp_path / 'texts.txt'}:2: 'the film was warm' has no [MASK] to fill\n"


def test_columns_rename(made, command, tmp_path: Path):
    rows = [json.loads(line) for line in made.dev.read_text(encoding="utf-8").splitlines()]
    lines = "review,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows)
    (tmp_path / "dev.csv").write_text(lines, encoding="utf-8")
    words = ["--data", tmp_path / "dev.csv", "--columns.text", "review"]
    plain = command("predict", made.finetuned, "--data", made.dev)
    assert command("predict", made.finetuned, *words).out == plain.out
    again = json.loads(command("evaluate", made.finetuned, *words, "--json").out)
    first = json.loads(command("evaluate", made.finetuned, "--data", made.dev, "--json").out)
    assert again["accuracy"] == first["accuracy"]


def test_the_seed_is_that_of_sampling_unless_that_has_its_own(made, writer: Path, command, tmp_path: Path):
    data = write_records(tmp_path / "pairs.jsonl", [{"source": "a lovely day", "target": "an old friend"}])
    given = {"predict": ["a lovely day"], "evaluate": ["--data", data, "--json"]}
    for verb, words in given.items():

        def answer(*more: object, verb: str = verb, words: list[object] = words) -> dict[str, object]:
            told = command(verb, writer, *words, "--generate.sample", "true", *more)
            assert told.code == 0, told.err
            return json.loads(told.out) | {"seconds": 0}

        assert answer("--seed", 5) == answer("--generate.seed", 5) == answer("--seed", 7, "--generate.seed", 5)
        assert len({json.dumps(answer("--seed", seed)) for seed in range(5)}) > 1
    assert command("predict", made.finetuned, "a lovely day", "--seed", 5).code == 0


def test_one_vocabulary_and_encoder_from_pairs_then_a_writer(command, tmp_path: Path):
    """As docs/generation.md has it: both sides are learnt from, each a text of its own."""
    pairs = [{"source": source, "target": target} for source, target in (("看书", "read"), ("吃饭", "eat")) * 20]
    data = write_records(tmp_path / "train.jsonl", pairs)
    both = ("--text", data, "--columns.text", "source,target")
    vocab, encoder, writer = tmp_path / "vocab", tmp_path / "encoder", tmp_path / "writer"
    told = command("vocab", *both, "--size", 120, "--out", vocab)
    assert told.code == 0, told.err
    pieces = (vocab / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert {"read", "eat", *"看书吃饭"} <= set(pieces)
    told = command(
        *("pretrain", *both, "--vocab", vocab, "--corpus.second", "none", "--steps", 2, "--step-tokens", 64),
        *("--corpus.max-length", 16, "--corpus.workers", 1, "--out", encoder),
    )
    assert told.code == 0, told.err
    text = sum(len(pair["source"]) + 1 for pair in pairs)  # both English words are one piece each
    assert f"{text:,} tokens of text" in told.err
    told = command(
        *("finetune", "generate", "--model", encoder, "--train", data, "--dev", data, "--epochs", 1, "--out", writer),
        *("--batching.max-length", 16, "--generate.decoding.max-length", 4),
    )
    assert told.code == 0, told.err
    assert command("predict", writer, "看书").code == 0


def test_settings_from_a_file_and_a_flag_over_them(made, command, tmp_path: Path):
    settings = (made.finetuned / "config.toml").read_text(encoding="utf-8")
    out = tmp_path / "run"
    told = command("finetune", "--config", made.finetuned / "config.toml", "--out", out, "--epochs", 1, "--quiet")
    assert (told.code, told.out, told.err) == (0, "", "")
    changed = {"epochs = 2": "epochs = 1", "quiet = false": "quiet = true", str(made.finetuned): str(out)}
    for before, after in changed.items():
        settings = settings.replace(before, after)
    assert (out / "config.toml").read_text(encoding="utf-8") == settings
    assert command("info", out, "--json").out.count('"epochs": 1') == 1


def test_seeds_give_means_and_a_model(made, command, tmp_path: Path):
    out = tmp_path / "run"
    told = command(
        *("finetune", "classify", "--model", made.pretrained, "--train", made.train, "--dev", made.dev),
        *("--epochs", 1, "--batch", 8, "--seeds", 2, "--seed", 5, "--out", out),
    )
    assert told.code == 0, told.err
    assert sorted(path.name for path in out.iterdir()) == ["config.toml", "log.jsonl", "model", "seed-5", "seed-6"]
    printed = dict(line.split(maxsplit=1) for line in told.out.splitlines())
    values = [float(value) for value in printed["accuracy_seeds"].split()]
    assert float(printed["accuracy"]) == pytest.approx(sum(values) / 2, abs=1e-4)
    assert {"accuracy_deviation", "seeds"} <= set(printed)
    best = out / f"seed-{5 + values.index(max(values))}" / "model" / "model.safetensors"
    assert (out / "model" / "model.safetensors").read_bytes() == best.read_bytes()
    assert command("predict", out, "a lovely day").code == 0
    info = json.loads(command("info", out, "--json").out)
    assert info["finished"]
    assert info["scores"]["accuracy_seeds"] == pytest.approx(values, abs=1e-4)


def test_duplicates_are_told_by_record_and_place(made, command, tmp_path: Path):
    """Of dev when a run begins; of any other data when the finished model is evaluated on it."""
    both = tmp_path / "dev.jsonl"
    lines = made.train.read_text(encoding="utf-8").splitlines()[2:5]
    long = json.dumps({"text": "film " * 600, "label": "bad"})  # two windows of one record
    fresh = made.dev.read_text(encoding="utf-8").splitlines()
    both.write_text("\n".join([*fresh, *lines, long]) + "\n", encoding="utf-8")
    (tmp_path / "train.jsonl").write_text(made.train.read_text(encoding="utf-8") + long + "\n", encoding="utf-8")
    told = command(
        *("finetune", "classify", "--model", made.pretrained, "--train", tmp_path / "train.jsonl", "--dev", both),
        *("--classify.long", "mean", "--epochs", 1, "--batch", 16, "--out", tmp_path / "run"),
    )
    assert told.code == 0, told.err
    assert (
        f"warning: 4 of 12 dev records also stand in train (first: {both}:9 is {tmp_path / 'train.jsonl'}:3); "
        f"their scores say nothing about unseen text\n" in told.err
    )
    found = command("evaluate", tmp_path / "run", "--data", both)
    assert found.err == (
        f"warning: 4 of 12 records stand in the model's training data too (first: {both}:9); "
        f"their scores say nothing about unseen text\n"
    )
    assert command("evaluate", tmp_path / "run", "--data", made.dev).err == ""
    compact = tmp_path / "compact"
    assert command("convert", tmp_path / "run", compact, "--to", "compact").code == 0
    assert command("evaluate", compact, "--data", both).err == found.err
    assert command("evaluate", compact, "--data", both, "--quiet").err == ""


def test_what_an_earlier_training_saw_is_known_too(made, command, tmp_path: Path):
    words = ("--epochs", 1, "--batch", 16, "--quiet", "--out", tmp_path / "run")
    assert command("finetune", "classify", "--model", made.finetuned, "--train", made.dev, *words).code == 0
    for data, count in ((made.train, 16), (made.dev, 8)):
        told = command("evaluate", tmp_path / "run", "--data", data)
        assert f"warning: {count} of {count} records stand in the model's training data too" in told.err


def test_a_long_line_is_read_as_far_as_the_model_goes_and_told(made, command, tmp_path: Path):
    rows = made.train.read_text(encoding="utf-8") + json.dumps({"text": "film " * 200_000, "label": "bad"}) + "\n"
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    told = command(
        *("finetune", "classify", "--model", made.pretrained, "--train", tmp_path / "train.jsonl", "--epochs", 1),
        *("--batching.max-length", 34, "--out", tmp_path / "run"),
    )
    assert told.code == 0, told.err
    assert "17 records, " in told.err
    assert "; 1 records are longer than the model reads: 199,968 tokens dropped" in told.err
    predicted = command("predict", tmp_path / "run", "film " * 200_000)
    assert json.loads(predicted.out)["tokens"] == {"kept": 510, "dropped": 199_490}


def test_what_is_read_again_is_told_of_train_and_dev_and_of_what_is_scored(made, command, tmp_path: Path):
    """Windows of 30 tokens of text that share 10: 70 words are 30 + 2 x 20, and 30 are one window."""
    for name, counts in (("train", [70, 30, 70]), ("dev", [50, 30])):
        rows = [{"tokens": ["film"] * count, "tags": ["A", "B"] * (count // 2)} for count in counts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run, dev = tmp_path / "run", tmp_path / "dev.jsonl"
    told = command(
        *("finetune", "tag", "--model", made.pretrained, "--train", tmp_path / "train.jsonl", "--dev", dev),
        *("--epochs", 1, "--batching.max-length", 32, "--tag.stride", 10, "--out", run),
    )
    assert told.code == 0, told.err
    assert "3 records, 170 tokens read; 2 records are read in windows: 40 tokens strided\n" in told.err
    assert "dev: 2 records, 80 tokens read; 1 records are read in windows: 10 tokens strided\n" in told.err
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    (data,) = [entry["data"] for entry in map(json.loads, lines) if "data" in entry]
    assert (data["records"], data["tokens"]) == (3, {"kept": 170, "strided": 40})
    assert data["dev"] == {"records": 2, "tokens": {"kept": 80, "strided": 10}}
    printed = dict(line.split(maxsplit=1) for line in told.out.splitlines())
    assert (printed["tokens"], printed["tokens_strided"], printed["tokens_dropped"]) == ("80", "10", "0")
    scores = load_predictor(run, device="cpu", max_length=22).evaluate(dev)
    assert (scores["tokens"], scores["tokens_strided"], scores["tokens_dropped"]) == (80, 10 * 3 + 10, 0)
    whole = json.loads(command("evaluate", run, "--data", dev, "--json").out)
    assert (whole["tokens"], whole["tokens_strided"], whole["tokens_dropped"]) == (80, 0, 0)


def test_python_dash_m_is_the_same_program(made):
    source = str(Path(__file__).resolve().parents[2] / "src")
    words = [sys.executable, "-m", "bothways", "predict", str(made.finetuned), "a lovely day"]
    env = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=True)
    assert json.loads(done.stdout)["label"] in ("good", "bad")
    assert done.stderr == ""


# -------------------------------------------------------------------------------------------------- info


def test_info_of_a_model(made, command):
    told = json.loads(command("info", made.finetuned / "model", "--json").out)
    model = load(made.finetuned)
    assert told["kind"] == "model"
    assert (told["task"], told["labels"]) == ("classify", ["bad", "good"])
    assert (told["layers"], told["width"], told["heads"], told["max_length"]) == (2, 128, 2, 512)
    assert told["parameters"] == model.parameters
    assert (told["dtype"], told["vocab_size"], told["lowercase"]) == ("F32", model.tokenizer.size, True)
    assert told["architecture"] == "BertForSequenceClassification"
    path = made.finetuned / "model" / "model.safetensors"
    assert told["files"]["model.safetensors"] == path.stat().st_size


def test_info_of_a_run(made, command):
    told = json.loads(command("info", made.finetuned, "--json").out)
    assert (told["kind"], told["finished"], told["steps"], told["epochs"]) == ("run", True, 4, 2)
    assert told["checkpoints"] == ["step-00000002", "step-00000004"]
    assert told["scores"]["records"] == 8
    assert told["model"]["task"] == "classify"
    lines = command("info", made.pretrained).out.splitlines()
    assert f"{'finished':24} yes" in lines
    assert "model" in lines


def test_info_of_a_vocabulary_and_of_nothing(made, command, tmp_path: Path):
    told = json.loads(command("info", made.vocab, "--json").out)
    assert (told["kind"], told["vocab_size"]) == ("vocabulary", load(made.pretrained).tokenizer.size)
    empty = command("info", tmp_path)
    assert empty.code == 2
    assert empty.err == (
        f"bothways: error: {tmp_path} holds neither a model (config.json), a run (config.toml) "
        f"nor a vocabulary (tokenizer.json)\n"
    )


def test_a_card_in_another_encoding_is_converted(made, command, tmp_path: Path):
    source = Path(shutil.copytree(made.finetuned / "model", tmp_path / "latin"))
    (source / "README.md").write_bytes(b"caf\xe9\n")
    told = command("convert", source, tmp_path / "out")
    assert told.code == 0, told.err
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "caf\ufffd\n"


def test_a_folder_called_builtin_is_not_the_built_in_model(
    made, command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "builtin").mkdir()
    (tmp_path / "builtin" / "config.toml").write_text('task = "classify"\n')
    told = command("index", "--data", write_records(tmp_path / "texts.jsonl", [{"text": "a b"}]), "--out", "index")
    assert told.code == 0, told.err
    assert json.loads((tmp_path / "index" / "index.json").read_text())["model"] == "builtin"
    assert json.loads(command("info", "builtin", "--json").out)["kind"] == "model"


def test_a_page_is_written_into_a_folder_that_is_not_there_yet(made, command, tmp_path: Path):
    told = command("attention", made.finetuned, "a day", "--out", tmp_path / "new" / "page.html")
    assert told.code == 0, told.err
    assert (tmp_path / "new" / "page.html").is_file()


def test_a_word_that_may_be_meant_as_a_model_is_told(command):
    told = command("analyze", "mymodel", "He said yes.")
    assert told.err == "mymodel: there is no such model folder, so it is analysed as a text\n"
    assert command("analyze", "Hello there.", "He said yes.").err == ""
    assert command("analyze", "builtin", "Hello", "world").err == ""
