"""The demo: its stages at a small size, its split free of leaks, and a folder in which it deletes only its own."""

from __future__ import annotations

import ast
import json
import string
from pathlib import Path

import pytest

import bothways
from bothways.cli import demo
from bothways.cli.demo import MARK, PARTS, Demo, Screen, Shown, System, compared, judged, prepare, show
from bothways.cli.demo_baselines import majority, tfidf
from bothways.cli.demo_builtin import ALIKE, LEARN, MASKED, SENSES, TEXTS, at_hand, meet
from bothways.cli.demo_text import Docstring, key, read_library, read_rows, write_text
from bothways.cli.main import main
from bothways.config import Common
from bothways.errors import ConfigError, DataError
from bothways.infer.predictor import Predictor
from bothways.models.model import fresh
from bothways.nn.encoder import EncoderConfig
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.masked import MaskedSettings, MaskedTask
from bothways.tasks.multi import MultiTask
from bothways.tasks.pretraining import PretrainTask
from bothways.text.tokenizer import Tokenizer

WORDS = {
    "baking": "dough flour oven yeast crust butter sugar loaf",
    "sailing": "mast rudder harbour wind anchor deck tide rope",
    "tennis": "racket serve net court umpire volley match ball",
}
COPIED = "Every module of this library says this very sentence."


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Three modules of documented functions, files that are to be left out, and one that is no Python."""
    folder = tmp_path / "library"
    for module, line in WORDS.items():
        words = line.split()
        functions = [
            f'def f{n}():\n    """Put the {words[n % 8]} beside the {words[n // 8]} of {n} others.\n\n{COPIED}"""\n'
            for n in range(40)
        ]
        (folder / module).mkdir(parents=True)
        (folder / module / "__init__.py").write_text(f'"""About {module}."""\n' + "\n".join(functions))
    (folder / "baking" / "tests").mkdir()
    (folder / "baking" / "tests" / "test_oven.py").write_text('"""No test of a module is to be read here."""')
    (folder / "site-packages").mkdir()
    (folder / "site-packages" / "other.py").write_text('"""No other package is to be read here."""')
    (folder / "broken.py").write_text("def (:")
    (folder / "odd.py").write_text('"""An odd one."""\nraise SystemExit("only read, never imported")')
    (folder / "pydoc_data").mkdir()
    (folder / "pydoc_data" / "topics.py").write_text("topics = {'if': 'The manual speaks of the statement here.'}")
    return folder


def test_the_demo_from_start_to_finish(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(LEARN, "epochs", 1)
    monkeypatch.setattr("bothways.cli.demo_builtin.TO_LEARN_FROM", 60)
    wanted = Demo(out=tmp_path / "demo", steps=2, epochs=1, common=Common(device="cpu"))
    shown = show(wanted, library)
    systems = [*shown.order, *shown.own]
    told = capsys.readouterr().out
    names = ["always the commoner answer", "order: TF-IDF + logistic regression"]
    names += ["order: its shape, not pre-trained", "order: the built-in model"]
    names += ["always the commonest module", "TF-IDF + logistic regression"]
    names += ["tiny BERT, not pre-trained", "tiny BERT, pre-trained"]
    assert [system.name for system in systems] == names
    rows = [line for line in told.splitlines() if line.startswith("│")]
    for system, row in zip(systems, rows, strict=True):
        assert f" {system.name} " in row
        assert f" {system.accuracy:.3f} " in row
    scores = json.loads((wanted.out / "scores.json").read_text())
    for system in (shown.order[3], shown.own[3]):
        assert scores[system.name]["accuracy"] == system.accuracy
    for name in ("train", "dev", "test"):
        plain = read_rows(wanted.out / "text" / f"{name}.jsonl")
        order = read_rows(wanted.out / "order" / f"{name}.jsonl")
        assert len(order) == (min(len(plain), 60) if name == "train" else len(plain))
        for before, after in zip(plain[: len(order)], order, strict=True):
            words, changed = before["text"].split(), after["text"].split()
            moved = [at for at, (one, other) in enumerate(zip(words, changed, strict=True)) if one != other]
            assert sorted(words) == sorted(changed)
            assert (len(moved), after["label"]) in [(0, "as written"), (2, "swapped")]
            assert not moved or moved == [moved[0], moved[0] + 1]
        assert {row["label"] for row in order} == {"as written", "swapped"}
    assert all((wanted.out / folder / "loss.png").is_file() for folder in ("pretrained", "finetuned"))
    test = wanted.out / "text" / "test.jsonl"
    assert f"bothways evaluate {wanted.out}/finetuned --data {test}" in told
    assert main(["evaluate", f"{wanted.out}/finetuned", "--data", str(test), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(shown.own[3].accuracy)


@pytest.mark.parametrize(("accuracy", "code"), [(0.5, 0), (0.4, 1), (0.3, 1)])
def test_the_demo_fails_where_being_pretrained_does_not_help(
    accuracy: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    order = [System("untrained", 0.4, 0.4, []), System("pre-trained", accuracy, 0.4, [])]
    monkeypatch.setattr(demo, "show", lambda wanted: Shown(order, []))
    assert demo.run(["--out", str(tmp_path)]) == code
    assert ("did not help" in capsys.readouterr().err) == bool(code)


def test_the_built_in_model_is_met_where_it_has_heads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    task = MultiTask({"masked": MaskedTask(MaskedSettings()), "mood": _mood()}, {"masked": 1.0, "mood": 1.0})
    for made, met in ((task, True), (PretrainTask(None), False)):
        config = EncoderConfig(300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        signs = sorted(set("".join([*TEXTS, *MASKED])) - {" "} | set(string.ascii_letters))
        tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs])
        predictor = Predictor(fresh(config, tokenizer, made), device="cpu")
        monkeypatch.setattr(bothways, "load", lambda device, predictor=predictor: predictor)
        found = at_hand("cpu")
        assert (found is predictor) == met
        if found is not None:
            meet(found, Screen(quiet=False))
    told = capsys.readouterr().out
    assert all(text in told for text in MASKED)
    assert told.count("mood") == len(TEXTS)
    for sentence, others in [*ALIKE, *((f"{word}: {sentence}", others) for word, sentence, others in SENSES)]:
        own = told[told.index(sentence) :].splitlines()[1 : 1 + len(others)]
        scores = [float(line.split()[0]) for line in own]
        assert scores == sorted(scores, reverse=True)
        assert {line.split(maxsplit=1)[1] for line in own} == set(others)


def _mood() -> ClassifyTask:
    return ClassifyTask(ClassifySettings(), "one", ["bad", "good"])


def test_no_sentence_of_dev_or_test_is_seen_in_training(library: Path, tmp_path: Path):
    source = (library / "sailing" / "__init__.py").read_text()
    copies = source[: source.index("def f20")].replace("others.", "Others .")  # the same sentences, for `key`
    (library / "copies.py").write_text(copies)
    text = write_text(tmp_path / "text", seed=3, library=library, modules=3)
    rows = {name: read_rows(getattr(text, name)) for name in ("train", "dev", "test")}
    seen = {name: {key(row["text"]) for row in part} for name, part in rows.items()}
    assert {name: len(part) for name, part in seen.items()} == text.sentences
    assert min(text.sentences.values()) >= 10
    assert seen["train"].isdisjoint(seen["dev"] | seen["test"])
    assert seen["dev"].isdisjoint(seen["test"])
    assert text.labels == sorted(WORDS)
    assert key("To do:\nthis.") == key("to  do: this.")
    read = key(text.read.read_text())
    assert [sentence for sentence in seen["dev"] | seen["test"] if sentence in read] == []
    assert seen["train"] == {sentence for sentence in seen["train"] if sentence in read}
    assert "manual" in read
    assert "isto" not in read  # what was to be left out: "… is to be read here"


def test_the_seed_decides_the_split(library: Path, tmp_path: Path):
    texts = [write_text(tmp_path / str(n), seed=seed, library=library) for n, seed in enumerate((1, 1, 2))]
    once, again, other = (text.test.read_text() for text in texts)
    assert once == again != other


def test_sentences_are_prose():
    text = "Start at the bottom and go up. Too short.\n\n>>> go(up)\nNothing here is a sentence.\n\n"
    text += "returns a\n  value, which is none"
    one = Docstring("m", text)
    assert one.paragraphs == ["Start at the bottom and go up. Too short.", "returns a value, which is none"]
    assert one.sentences == ["Start at the bottom and go up."]


def test_the_standard_library_of_this_machine_is_read():
    folder = Path(ast.__file__).parent
    found = list(read_library(folder / "asyncio"))
    assert len(found) > 100
    assert {one.module for one in found} > {"tasks", "events"}


def test_without_a_library_there_is_one_line(tmp_path: Path):
    (tmp_path / "compiled").mkdir()
    with pytest.raises(DataError, match=r"compiled: 0 documented modules .* source \(its \.py files\) installed\?"):
        write_text(tmp_path / "text", seed=0, library=tmp_path / "compiled")


def test_baselines():
    train = [{"text": f"the {word}", "label": label} for label, line in WORDS.items() for word in line.split()]
    train += train[-2:]
    test = [{"text": "a rudder and a mast", "label": "sailing"}, {"text": "flour", "label": "baking"}]
    assert majority(train, test) == ["tennis", "tennis"]
    assert tfidf(train, test, test) == ["sailing", "baking"]


def test_the_verdict_says_how_sure_it_is():
    gold = [{"label": "a"}] * 100
    good, fair, bad = (
        judged(name, ["a"] * n + ["b"] * (100 - n), gold) for name, n in (("x", 80), ("y", 78), ("z", 20))
    )
    assert good.accuracy == 0.8
    assert compared(good, bad, seed=0).startswith("x, beside z: better (+60.0 points, 95% interval +50.0 to +")
    assert compared(bad, good, seed=0).startswith("z, beside x: worse (-60.0 points, ")
    assert compared(fair, good, seed=0) == "y, beside x: no clear difference (-2.0 points, 95% interval -5.0 to +0.0)"


def test_only_what_a_demo_made_is_replaced(tmp_path: Path):
    out = prepare(tmp_path / "demo")
    assert (out / MARK).is_file()
    for part in PARTS:
        (out / part).mkdir()
        (out / part / "file").write_text("made")
    (out / "mine").mkdir()
    (out / "notes.txt").write_text("mine")
    prepare(out)
    assert sorted(path.name for path in out.iterdir()) == [MARK, "mine", "notes.txt"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_folder_that_no_demo_made_is_left_alone(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    mine = tmp_path / "mine" if kind == "link" else out
    if kind == "file":
        out.write_text("mine")
    else:
        (mine / "text").mkdir(parents=True)
    if kind == "link":
        out.symlink_to(prepare(tmp_path / "demo"))
    with pytest.raises(ConfigError, match="exists already"):
        prepare(out)
    assert main(["demo", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"bothways: error: --out {out} exists already and ")
    assert kind == "file" or (mine / "text").is_dir()
