"""An index: found is what comparing all finds; added to, deleted from, filtered, joined with words, re-ranked."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from bothways.errors import ConfigError, DataError, ModelError
from bothways.infer.predictor import Predictor
from bothways.models.model import Model, save
from bothways.nn.network import Network
from bothways.tasks.pair import PairSettings, PairTask
from bothways.vectors import embed as embedding
from bothways.vectors import index as reading
from bothways.vectors import indexing as module
from bothways.vectors import search as searching
from bothways.vectors.embed import held
from bothways.vectors.index import Index
from bothways.vectors.indexing import change_index
from bothways.vectors.search import fused, pair_scores, search
from bothways.vectors.words import words_of

CHINESE = ["今天天气很好", "我们去北京看电影", "他喜欢吃水果"]


def rows(texts):
    return [{"id": f"t{n}", "text": text, "year": 2000 + n, "lang": "en"} for n, text in enumerate(texts)]


@pytest.fixture
def embedder(predictor):
    return predictor.embedder()


@pytest.fixture
def made(embedder, jsonl, texts, tmp_path):
    """An index of the fifty texts and three Chinese ones."""
    data = jsonl([*rows(texts), *({"id": f"zh{n}", "text": text, "lang": "zh"} for n, text in enumerate(CHINESE))])
    change_index(tmp_path / "index", embedder, data=data, made_by={}, quiet=True)
    return tmp_path / "index"


def nearest(embedder, query, texts, k):
    scores = embedder.embed(list(texts)) @ embedder.embed([query])[0]
    return np.argsort(-scores, kind="stable")[:k].tolist(), np.sort(scores)[::-1][:k]


def test_words_of_a_text():
    assert words_of("It's a Fine day, isn't it? 3D!") == ["it's", "a", "fine", "day", "isn't", "it", "3d"]
    assert words_of("他喜欢看The Film。") == ["他", "喜欢", "看", "the", "film"]
    assert words_of("") == []


@pytest.mark.parametrize("few", [True, False])
def test_vectors_find_what_comparing_all_finds(made, embedder, texts, few, monkeypatch, jsonl, tmp_path):
    if not few:
        monkeypatch.setattr(module, "EXACT", 5)
        change_index(tmp_path / "graph", embedder, data=tmp_path / "data.jsonl", made_by={}, quiet=True)
        made = tmp_path / "graph"
    index = Index(made)
    assert (index.graph is None) is few
    every = texts + CHINESE
    ids = index.ids
    for query in ("the warm film", "今天", "old friends"):
        (hits,) = search(index, embedder, [query], k=5, by="vectors")
        wanted, scores = nearest(embedder, query, every, 5)
        assert [hit["id"] for hit in hits] == [ids[row] for row in wanted]
        np.testing.assert_allclose([hit["score"] for hit in hits], scores, atol=1e-5)
    assert hits[0]["text"] in every
    assert ("year" in hits[0]) is (hits[0]["lang"] == "en")


def test_words_find_what_holds_them(made, texts):
    index = Index(made)
    (hits,) = search(index, None, ["北京电影"], by="words")
    assert [hit["id"] for hit in hits] == ["zh1"]
    (hits,) = search(index, None, ["friends town"], by="words", k=50)
    assert {hit["text"] for hit in hits} == {text for text in texts if {"friends", "town"} & set(text.split())}
    assert search(index, None, ["nowhere"], by="words") == [[]]


def test_ranks_are_joined(made, embedder):
    assert fused([[(7, 0.9), (3, 0.5)], [(3, 12.0), (9, 1.0)]]) == [
        (3, 1 / 62 + 1 / 61),
        (7, 1 / 61),
        (9, 1 / 62),
    ]
    index = Index(made)
    (hits,) = search(index, embedder, ["吃水果"], k=53)
    assert hits[0]["id"] == "zh2"
    assert len(hits) == 53


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"lang": "zh"}, {"zh0", "zh1", "zh2"}),
        ({"year": ">=2048"}, {"t48", "t49"}),
        ({"year": "2003"}, {"t3"}),
        ({"year": "<2002", "lang": "en"}, {"t0", "t1"}),
        ({"lang": "!=en"}, {"zh0", "zh1", "zh2"}),
        ({"year": "<2002", "lang": "zh"}, set()),
        ({"year": ">2047.5", "lang": "en"}, {"t48", "t49"}),
    ],
)
@pytest.mark.parametrize("by", ["vectors", "both"])
def test_filters(made, embedder, where, wanted, by):
    (hits,) = search(Index(made), embedder, ["the film"], where=where, by=by)
    assert {hit["id"] for hit in hits} == wanted


@pytest.mark.parametrize("few", [True, False])
def test_added_replaced_deleted(made, embedder, jsonl, texts, tmp_path, few, monkeypatch):
    if not few:
        monkeypatch.setattr(module, "EXACT", 5)
    change = {"made_by": {}, "quiet": True}
    new = jsonl([{"id": "t3", "text": "warm", "lang": "en"}, {"id": "new", "text": "cold day"}], "new.jsonl")
    changed = change_index(made, embedder, data=new, delete=["t5", "zh0"], **change)
    assert (changed.records, changed.added, changed.replaced, changed.deleted) == (52, 1, 1, 2)
    again = change_index(made, embedder, delete=["t6"], **change)
    assert again.records == 51
    index = Index(made)
    there = [text for n, text in enumerate(texts) if n not in (3, 5, 6)] + CHINESE[1:] + ["warm", "cold day"]
    assert index.table["text"].to_pylist() == there
    np.testing.assert_allclose(index.vectors, embedder.embed(there), atol=1e-6)
    (hits,) = search(index, embedder, ["cold day"], k=4, by="vectors")
    wanted = nearest(embedder, "cold day", there, 4)[1]
    assert [hit["score"] for hit in hits] == pytest.approx(wanted.tolist(), abs=1e-5)
    assert hits[0]["id"] == "new"
    assert sorted(path.name for path in made.iterdir()) == ["000003", "index.json"]


def test_a_change_leaves_what_is_not_its_own(made, embedder, jsonl):
    mine = [made / "notes", made / "202401", made / "20240101"]
    for folder in mine:
        folder.mkdir()
        (folder / "mine").write_text("")
    change_index(made, embedder, delete=["t3"], made_by={}, quiet=True)
    assert sorted(path.name for path in made.iterdir()) == ["000002", "202401", "20240101", "index.json", "notes"]
    assert all((folder / "mine").is_file() for folder in mine)


def test_what_is_without_an_id_is_numbered_on(embedder, jsonl, tmp_path):
    index, change = tmp_path / "index", {"made_by": {}, "quiet": True}
    change_index(index, embedder, data=jsonl([{"text": "old"}, {"text": "town"}, {"id": 4, "text": "day"}]), **change)
    change_index(index, embedder, delete=["2"], **change)
    (tmp_path / "more.txt").write_text("a film\nwarm day\n")
    for count in (4, 6):  # the same file again is added again
        changed = change_index(index, embedder, data=tmp_path / "more.txt", **change)
        assert (changed.records, changed.added, changed.replaced) == (count, 2, 0)
    assert Index(index).ids == ["1", "4", "5", "6", "7", "8"]
    assert change_index(index, embedder, data=jsonl([{"id": 10, "text": "cold"}]), **change).added == 1
    change_index(index, embedder, data=jsonl([{"text": "x"}, {"text": "y"}]), **change)
    assert Index(index).ids[6:] == ["10", "11", "12"]
    change_index(index, embedder, delete=["12"], **change)  # a number is not given again
    change_index(index, embedder, data=jsonl([{"text": "z"}]), **change)
    assert Index(index).ids[6:] == ["10", "11", "13"]


def test_nothing_is_left_behind_where_all_would_be_deleted(made, embedder):
    with pytest.raises(DataError, match="no record would be left; remove the folder instead"):
        change_index(made, embedder, delete=Index(made).ids, made_by={}, quiet=True)
    assert sorted(path.name for path in made.iterdir()) == ["000001", "index.json"]


def test_all_is_on_disk_before_the_old_goes(made, embedder, monkeypatch):
    synced = []

    def noted(path):
        synced.append((path.name, (made / "000001").is_dir()))

    monkeypatch.setattr(module, "sync", noted)
    change_index(made, embedder, delete=["t3"], made_by={}, quiet=True)
    names = {name for name, _ in synced}
    assert {"records.parquet", "vectors.npy", "keys.npy", "words", "000002", ".index.json.part"} <= names
    assert synced[-1] == ("index", True)


@pytest.mark.parametrize("words", [True, False])
def test_words_stay_as_the_index_has_them(command, folder, jsonl, texts, tmp_path, words):
    index, more = tmp_path / "index", jsonl([{"id": "new", "text": "cold day"}], "more.jsonl")
    flag = () if words else ("--no-keywords",)
    assert command("index", folder, "--data", jsonl(rows(texts)), "--out", index, *flag).code == 0
    for change in (("--data", more, "--update"), ("--delete", "t3")):
        assert command("index", "--out", index, *change).code == 0
        assert (Index(index).words is not None) is words
    manifest = json.loads((index / "index.json").read_text())
    del manifest["keywords"]  # as an older release left it
    (index / "index.json").write_text(json.dumps(manifest))
    assert command("index", "--out", index, "--delete", "t4").code == 0
    assert (Index(index).words is not None) is words
    assert command("index", "--out", index, "--delete", "t5", "--no-keywords").code == 0
    assert Index(index).words is None


def test_an_index_where_we_are(command, folder, jsonl, texts, tmp_path, monkeypatch):
    data = jsonl(rows(texts))
    (tmp_path / "index" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "index")
    (tmp_path / "index" / "below").rmdir()
    assert command("index", folder, "--data", data, "--out", ".")[:2] == (0, "50 records in . (50 added)\n")
    (tmp_path / "index" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "index" / "below")
    assert command("index", "--out", "..", "--delete", "t3")[:2] == (0, "49 records in .. (1 deleted)\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "index"]
    code, _, err = command("index", folder, "--data", data, "--out", "/")
    assert (code, err.count("\n")) == (2, 1)


def test_a_change_does_not_reach_who_has_opened_the_index(made, embedder, jsonl):
    ways = ("both", "vectors", "words")
    before = [search(Index(made), embedder, ["吃水果"], by=by) for by in ways]
    index = Index(made)
    change_index(made, embedder, delete=["zh2"], made_by={}, quiet=True)
    assert not index.place.exists()
    assert [search(index, embedder, ["吃水果"], by=by) for by in ways] == before


@pytest.mark.parametrize("at", ["records", "words", "end"])
def test_a_change_while_the_index_is_opened(made, embedder, at, monkeypatch):
    part, read = Index._part, reading.read_manifest
    left = [True]

    def change():
        if left.pop() if left else False:
            change_index(made, embedder, delete=["zh2"], made_by={}, quiet=True)

    def slow(self, what, get):
        if what == at and self.place.name == "000001" and left:
            change()
        return part(self, what, get)

    def late(folder):
        manifest = read(folder)
        if at == "end" and manifest["generation"] == "000001" and left:
            change()
        return manifest

    monkeypatch.setattr(Index, "_part", slow)
    monkeypatch.setattr(reading, "read_manifest", late)
    index = Index(made)
    assert (index.place.name, len(index.ids), index.words is None) == ("000002", 52, False)


def test_a_part_that_is_damaged(made):
    (made / "000001" / "keys.npy").write_bytes(b"")
    with pytest.raises(ModelError, match=r"000001: the keys can't be read \(.*\); index the records again"):
        Index(made)


def test_many_are_compared_some_at_a_time(made, embedder, texts, monkeypatch):
    queries = texts[:7]
    whole = search(Index(made), embedder, queries, k=5, by="vectors")
    allowed = search(Index(made), embedder, queries, k=5, by="vectors", where={"lang": "en"})
    monkeypatch.setattr(searching, "ROWS", 4)
    monkeypatch.setattr(searching, "QUERIES", 3)

    def ids(found):
        return [[hit["id"] for hit in hits] for hits in found]

    assert ids(search(Index(made), embedder, queries, k=5, by="vectors")) == ids(whole)
    assert ids(search(Index(made), embedder, queries, k=5, by="vectors", where={"lang": "en"})) == ids(allowed)


def test_what_stops_a_change_leaves_the_index_as_it_was(made, embedder, jsonl, monkeypatch):
    before = (made / "index.json").read_bytes()
    new = jsonl([{"id": "new", "text": "cold day"}], "new.jsonl")
    monkeypatch.setattr(module.np, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        change_index(made, embedder, data=new, made_by={}, quiet=True)
    monkeypatch.undo()
    assert (made / "index.json").read_bytes() == before
    assert len(Index(made).ids) == 53
    assert change_index(made, embedder, data=new, made_by={}, quiet=True).records == 54


def test_what_stops_a_new_index_is_done_again(embedder, jsonl, texts, tmp_path, monkeypatch):
    data, index = jsonl(rows(texts)), tmp_path / "index"
    monkeypatch.setattr(module.np, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        change_index(index, embedder, data=data, made_by={}, quiet=True)
    monkeypatch.undo()
    assert index.is_dir()
    assert change_index(index, embedder, data=data, made_by={}, quiet=True).records == 50


def test_a_stop_after_the_vectors_does_not_lose_them(embedder, jsonl, texts, tmp_path, monkeypatch):
    data, index = jsonl(rows(texts)), tmp_path / "index"
    monkeypatch.setattr(module, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        change_index(index, embedder, data=data, made_by={}, quiet=True)
    monkeypatch.undo()
    monkeypatch.setattr(embedding, "_write_part", lambda *_: pytest.fail("computed again"))
    assert change_index(index, embedder, data=data, made_by={}, quiet=True).records == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "index"]


def test_one_at_a_time_changes_an_index(made, embedder, jsonl, tmp_path):
    before, new = (made / "index.json").read_bytes(), jsonl([{"id": "new", "text": "cold day"}], "new.jsonl")
    with held(tmp_path / ".index.work"):
        for data, delete in ((new, []), (None, ["t3"])):
            with pytest.raises(ConfigError, match=r"another process is writing to .*\.index\.work; wait for it"):
                change_index(made, embedder, data=data, delete=delete, made_by={}, quiet=True)
    assert (made / "index.json").read_bytes() == before
    assert change_index(made, embedder, data=new, delete=["t3"], made_by={}, quiet=True).records == 53
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "index", "new.jsonl"]


def test_a_field_of_another_type_is_known_before_the_vectors_are_computed(made, embedder, jsonl, monkeypatch):
    monkeypatch.setattr(module, "embed_file", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(DataError, match="a field is of another type than in the index"):
        change_index(made, embedder, data=jsonl([{"text": "a", "year": "x"}], "n.jsonl"), made_by={}, quiet=True)
    assert not (made.parent / ".index.work").exists()


def test_a_field_of_nothing_is_of_any_type(made, embedder, jsonl):
    change_index(
        made, embedder, data=jsonl([{"id": "n", "text": "a", "year": None}], "n.jsonl"), made_by={}, quiet=True
    )
    table = Index(made).table
    assert (str(table.schema.field("year").type), table["year"].to_pylist()[-1]) == ("int64", None)


def test_numbers_that_no_column_holds(embedder, jsonl, tmp_path):
    data = jsonl([{"text": "a", "n": 10**20}, {"text": "film", "n": 3}])
    change_index(tmp_path / "index", embedder, data=data, made_by={}, quiet=True)
    assert Index(tmp_path / "index").table["n"].to_pylist() == ["1" + "0" * 20, "3"]


def test_nan_of_parquet_is_nothing(embedder, tmp_path):
    table = pa.table({"text": ["a", "film"], "x": [float("nan"), 2.0]})
    parquet.write_table(table, tmp_path / "data.parquet")
    change_index(tmp_path / "index", embedder, data=tmp_path / "data.parquet", made_by={}, quiet=True)
    assert Index(tmp_path / "index").table["x"].to_pylist() == [None, 2.0]


def test_texts_without_a_word_are_found_by_their_vectors(embedder, jsonl, tmp_path):
    change_index(tmp_path / "index", embedder, data=jsonl([{"text": "!!!"}, {"text": "?"}]), made_by={}, quiet=True)
    (hits,) = search(Index(tmp_path / "index"), embedder, ["!!!"], k=1)
    assert hits[0]["text"] == "!!!"


def test_a_score_of_the_record_is_another_one(embedder, jsonl, tmp_path):
    change_index(tmp_path / "index", embedder, data=jsonl([{"text": "a", "score": "x"}]), made_by={}, quiet=True)
    (hits,) = search(Index(tmp_path / "index"), embedder, ["a"], by="vectors", where={"score": "x"})
    assert (hits[0]["score"], hits[0]["record_score"]) == (pytest.approx(1, abs=1e-5), "x")


def test_without_bm25s_nothing_is_begun(embedder, jsonl, texts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ModuleNotFoundError):
        change_index(tmp_path / "index", embedder, data=jsonl(rows(texts)), made_by={}, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"year": ">=2020"}, {"b"}),  # as texts, "999" would be more
        ({"year": "<2020"}, {"a"}),
        ({"year": "999"}, {"a"}),
        ({"day": ">=2024-02"}, {"b", "c"}),
    ],
)
def test_numbers_of_a_csv_file_are_compared_as_numbers(embedder, tmp_path, where, wanted):
    (tmp_path / "data.csv").write_text(
        "id,text,year,day\na,old town,999,2024-01-31\nb,a film,2020,2024-02-01\nc,warm day,,2025-01-01\n"
    )
    change_index(tmp_path / "index", embedder, data=tmp_path / "data.csv", made_by={}, quiet=True)
    (hits,) = search(Index(tmp_path / "index"), embedder, ["a film"], where=where)
    assert {hit["id"] for hit in hits} == wanted


LARGE = 2**53 + 1  # a float has it not


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("where", [str(LARGE), f"<={LARGE}", f">={LARGE}", f"<{LARGE + 1}", f">{LARGE - 1}"])
def test_numbers_that_a_float_has_not(embedder, jsonl, tmp_path, where, ending):
    data = jsonl([{"id": "a", "text": "film", "n": LARGE}])
    if ending == "csv":
        data = tmp_path / "data.csv"
        data.write_text(f"id,text,n\na,film,{LARGE}\n")
    change_index(tmp_path / "index", embedder, data=data, made_by={}, quiet=True)
    (hits,) = search(Index(tmp_path / "index"), embedder, ["film"], where={"n": where})
    assert [hit["id"] for hit in hits] == ["a"]
    assert search(Index(tmp_path / "index"), embedder, ["film"], where={"n": f"!={LARGE}"}) == [[]]


def test_numbers_that_a_float_has_not_beside_one(embedder, jsonl, tmp_path):
    data = jsonl([{"id": "a", "text": "film", "n": LARGE}, {"id": "b", "text": "town", "n": 1.5}])
    change_index(tmp_path / "index", embedder, data=data, made_by={}, quiet=True)
    assert [record["n"] for record in Index(tmp_path / "index").records([0, 1])] == [str(LARGE), "1.5"]


@pytest.mark.parametrize(("where", "wanted"), [("True", {"a"}), ("true", {"a"}), ("!=TRUE", {"b"}), ("False", {"b"})])
def test_truth_values(embedder, jsonl, tmp_path, where, wanted):
    data = jsonl([{"id": "a", "text": "film", "flag": True}, {"id": "b", "text": "day", "flag": False}])
    change_index(tmp_path / "index", embedder, data=data, made_by={}, quiet=True)
    (hits,) = search(Index(tmp_path / "index"), embedder, ["film"], where={"flag": where})
    assert {hit["id"] for hit in hits} == wanted


def test_a_title_stands_before_the_text(embedder, jsonl, tmp_path):
    data = jsonl([{"_id": 7, "title": "the film", "text": "was long"}, {"text": "a day", "title": ""}])
    change_index(tmp_path / "index", embedder, data=data, made_by={}, quiet=True)
    index = Index(tmp_path / "index")
    assert index.records([0, 1]) == [
        {"id": "7", "title": "the film", "text": "the film was long"},
        {"id": "2", "title": "", "text": "a day"},
    ]


def test_a_title_is_a_field_whatever_it_is(embedder, jsonl, tmp_path):
    data = jsonl([{"title": 1984, "text": "a film"}, {"title": 2001, "text": "a film"}])
    change_index(tmp_path / "index", embedder, data=data, made_by={}, quiet=True)
    (hits,) = search(Index(tmp_path / "index"), embedder, ["a film"], where={"title": "<2000"})
    assert [(hit["id"], hit["title"], hit["text"]) for hit in hits] == [("1", 1984, "a film")]


@pytest.fixture
def pair(predictor):
    """A model that reads pairs."""
    encoder = predictor.model.network.encoder
    task = PairTask(PairSettings(), ["no", "yes"])
    return Predictor(Model(predictor.model.tokenizer, Network(encoder, task.heads(encoder)), task), device="cpu")


def test_a_pair_model_ranks_again(made, embedder, pair):
    (hits,) = search(Index(made), embedder, ["old town"], k=5, reranker=pair, depth=20)
    scores = [one["scores"]["yes"] for one in pair.predict([("old town", hit["text"]) for hit in hits])]
    assert [hit["score"] for hit in hits] == pytest.approx(scores, abs=1e-5)
    assert scores == sorted(scores, reverse=True)
    assert len(search(Index(made), embedder, ["old town"], k=40, reranker=pair, depth=20)[0]) == 40


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (["contradiction", "entailment", "neutral"], "entailment"),
        (["duplicate", "non-duplicate"], "duplicate"),
        (["duplicate", "not_duplicate"], "duplicate"),
        (["0", "1"], "1"),
    ],
)
def test_what_ranks_is_the_label_of_what_belongs_together(predictor, labels, positive):
    encoder = predictor.model.network.encoder
    task = PairTask(PairSettings(), labels)
    pair = Predictor(Model(predictor.model.tokenizer, Network(encoder, task.heads(encoder)), task), device="cpu")
    (said,) = pair.predict([("old town", "a film")])
    assert pair_scores(pair, [("old town", "a film")]).tolist() == [said["scores"][positive]]


@pytest.mark.parametrize("blank", [" ", "\u200b", "\x01"])
def test_what_has_no_text_is_not_ranked_again(embedder, pair, jsonl, tmp_path, blank):
    data = jsonl([{"id": "a", "text": "old town"}, {"id": "blank", "text": blank}, {"id": "b", "text": "a film"}])
    change_index(tmp_path / "index", embedder, data=data, made_by={}, quiet=True)
    hits, none = search(Index(tmp_path / "index"), embedder, ["old town", blank], by="vectors", reranker=pair)
    assert ({hit["id"] for hit in hits}, none) == ({"a", "b"}, [])


def test_what_was_not_read_as_it_stands_is_told(embedder, pair, jsonl, tmp_path):
    data = jsonl([{"text": "the film " * 20}, {"text": "old town"}])
    change_index(tmp_path / "index", embedder, data=data, made_by={}, quiet=True)
    told: list[str] = []
    search(Index(tmp_path / "index"), embedder, ["old town", "old " * 30, ""], reranker=pair, told=told)
    assert told[:2] == [
        "queries: 1 of 3 texts: longer than the model reads at once: pooled over windows",
        "queries: 1 of 3 texts: the text is empty: its vector is that of [CLS] [SEP]",
    ]
    assert re.fullmatch(r"ranked again: \d+ tokens were not read, \d+ were", told[2])
    assert len(told) == 3
    told.clear()
    search(Index(tmp_path / "index"), embedder, ["old town"], told=told)
    assert told == []


def test_from_the_command_line(command, folder, jsonl, texts, tmp_path):
    index = tmp_path / "index"
    code, out, err = command("index", folder, "--data", jsonl(rows(texts)), "--out", index)
    assert (code, err, out) == (0, "", f"50 records in {index} (50 added)\n")
    code, out, err = command("search", index, texts[7], "-k", 3, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["query"] == texts[7]
    assert (told["hits"][0]["id"], len(told["hits"])) == ("t7", 3)
    code, out, _ = command("search", index, texts[7], "--where.year", ">2040", "-k", 2, "--by", "vectors")
    assert [line.split()[2] for line in out.splitlines()] == sorted(
        {line.split()[2] for line in out.splitlines()}, key=[line.split()[2] for line in out.splitlines()].index
    )
    assert len(out.splitlines()) == 2
    told = json.loads(command("info", index, "--json")[1])
    assert told == {"kind": "index", "folder": str(index), "records": 50, "width": 16, "model": str(folder)} | {
        "layers": None,
        "pooling": None,
        "words": True,
    }
    code, out, _ = command("index", "--out", index, "--delete", "t7", "t8")
    assert (code, out) == (0, f"48 records in {index} (2 deleted)\n")
    more = jsonl([{"id": "t9", "text": "again"}, {"id": "x", "text": "more"}], "more.jsonl")
    code, out, _ = command("index", "--out", index, "--data", more, "--update")
    assert (code, out) == (0, f"49 records in {index} (1 added, 1 replaced)\n")


def test_what_search_says_beside_what_it_finds(command, folder, jsonl, tmp_path):
    index = tmp_path / "index"
    command("index", folder, "--data", jsonl([{"id": "a", "text": "film"}]), "--out", index)
    assert command("search", index, "cold", "--by", "words") == (0, "", "nothing found\n")
    assert command("search", index, "cold", "--by", "words", "--quiet") == (0, "", "")
    assert command("search", index, "cold", "film", "--by", "words")[2] == "nothing found: cold\n"
    assert command("search", index, "cold", "--by", "words", "--json") == (0, '{"query": "cold", "hits": []}\n', "")
    err = command("search", index, "film " * 30, "--by", "vectors", "--json")[2]
    assert err == "queries: 1 of 1 texts: longer than the model reads at once: pooled over windows\n"


def test_queries_in_a_column_and_texts_that_would_steer_the_terminal(command, folder, jsonl, tmp_path):
    index = tmp_path / "index"
    command("index", folder, "--data", jsonl([{"id": "a\x1b[1m", "text": "film \x1b]0;t\x07 day"}]), "--out", index)
    queries = jsonl([{"asked": "film \x1b[31m"}, {"asked": "day"}], "q.jsonl")
    code, out, err = command("search", index, "--queries", queries, "--columns.text", "asked", "--by", "vectors")
    assert (code, err, "\x1b" in out, "\\x1b]0;t\\x07" in out) == (0, "", False, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("index", "MODEL", "--out", "index"), "what is to be indexed? give records by --data F, or ids to --delete"),
        (("index", "MODEL", "--data", "data.jsonl", "--out", "index"), "index holds an index already; say --update"),
        (("index", "--delete", "a", "--out", "other"), "other holds no index to change; leave --update and --delete"),
        (("index", "--delete", "a", "--out", "index"), "there is no record 'a' to delete"),
        (
            ("index", "--delete", "t0", "--data", "data.jsonl", "--out", "index"),
            "--delete with --data adds records and replaces others too; say --update, or leave one out",
        ),
        (("index", "--data", "twice.jsonl", "--out", "index", "--update"), "twice.jsonl:2: the id 'a' is that of rec"),
        (("index", "--data", "none.jsonl", "--out", "index", "--update"), "none.jsonl:1: no field 'text'"),
        (
            ("index", "--out", "index", "--update", "--data", "twice.jsonl", "--layers", "1"),
            "index was made by another",
        ),
        (("index", "MODEL", "--data", "data.jsonl", "--out", "full"), "--out full exists already and is no index"),
        (("search", "index"), "what is to be found? give queries, or a file by --queries F (one of the two)"),
        (("search", "index", "a", "-k", "0"), "k is 0; it must be at least 1"),
        (("search", "index", "a", "--columns.text", "b"), "--columns is for the file of --queries; leave it out"),
        (
            ("search", "full", "a"),
            "full is no index (index.json is missing); make one: bothways index MODEL",
        ),
        (("search", "index", "a", "--where.yaer", "1"), "no field 'yaer' to filter by; there are 'id'"),
        (("search", "index", "a", "--where.year", ">x"), "the field 'year' holds numbers; found 'x' to compare"),
        (("search", "index", "a", "--rerank", "MODEL"), "a model that re-ranks is one of pair or similarity; this one"),
    ],
)
def test_mistakes(command, folder, jsonl, texts, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    jsonl(rows(texts[:3]))
    jsonl([{"id": "a", "text": "a"}, {"id": "a", "text": "b"}], "twice.jsonl")
    jsonl([{"id": "a"}], "none.jsonl")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    assert command("index", folder, "--data", "data.jsonl", "--out", "index", "--quiet")[0] == 0
    before = (tmp_path / "index" / "index.json").read_bytes()
    code, out, err = command(*(folder if word == "MODEL" else word for word in words))
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("bothways: error: ")
    assert err.count("\n") == 1
    assert (tmp_path / "index" / "index.json").read_bytes() == before


def test_another_model_at_that_place(command, folder, predictor, jsonl, texts, tmp_path):
    index = tmp_path / "index"
    command("index", folder, "--data", jsonl(rows(texts)), "--out", index)
    from bothways.models.model import load

    other = load(folder)
    other.network.encoder.embeddings.word.weight.data.mul_(2)
    save(other, tmp_path / "other")
    code, _, err = command("search", index, "a", "--model", tmp_path / "other")
    assert code == 2
    assert f"{tmp_path / 'other'} is not the model that made {index}, or has changed since; give that one by" in err


def test_what_a_model_advises_decides_no_vector(command, folder, jsonl, texts, tmp_path):
    index, model = tmp_path / "index", tmp_path / "model"
    shutil.copytree(folder, model)
    command("index", model, "--data", jsonl(rows(texts)), "--out", index)
    file = model / "bothways.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"finetune": {"method": "muon", "lr": 1e-3}, "points_lost": {"int8": 0.1}}))
    assert command("search", index, "a", "-k", 1)[0] == 0
    assert command("index", "--out", index, "--delete", "t3")[0] == 0


@pytest.mark.parametrize("what", ["tokenizer", "settings"])
def test_the_same_weights_with_other_files(command, folder, jsonl, texts, tmp_path, what):
    index, model = tmp_path / "index", tmp_path / "model"
    shutil.copytree(folder, model)
    command("index", model, "--data", jsonl(rows(texts)), "--out", index)
    if what == "tokenizer":
        file = model / "tokenizer.json"
        file.write_text(file.read_text().replace('"lowercase": true', '"lowercase": false'))
    else:
        file = model / "bothways.json"
        file.write_text(file.read_text().replace('"mean"', '"max"'))
    for words in (("search", index, "a"), ("index", "--out", index, "--delete", "t3")):
        code, out, err = command(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
    manifest = json.loads((index / "index.json").read_text())
    manifest["made_by"] = {name: manifest["made_by"][name] for name in ("weights", "options")}  # of an older release
    (index / "index.json").write_text(json.dumps(manifest))
    assert command("search", index, "a", "-k", 1)[0] == 0
    assert command("index", "--out", index, "--delete", "t3")[0] == 0
    assert "files" in json.loads((index / "index.json").read_text())["made_by"]
