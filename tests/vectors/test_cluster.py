"""Clusters: found again where they are plain, named by their words, drawn on a page that loads nothing, twice alike."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest

from bothways.errors import ConfigError, DataError
from bothways.metrics.clusters import clusters as cluster_scores
from bothways.vectors import cluster as cluster_module
from bothways.vectors import embed as embedding
from bothways.vectors import map as map_module
from bothways.vectors.cluster import assign, cluster_file
from bothways.vectors.embed import held
from bothways.vectors.keywords import keywords

TOPICS = {"town": ["old", "town", "day"], "film": ["film", "great", "cold"], "吃": ["他喜欢", "吃水果"]}


@pytest.fixture(scope="module")
def rows():
    draw = random.Random(2)
    made = []
    for number in range(60):
        label = list(TOPICS)[number % 3]
        glue = "" if label == "吃" else " "
        made.append({"id": number, "text": glue.join(draw.choices(TOPICS[label], k=4)), "label": label})
    return made


def blobs(count=60, clusters=4, width=16, spread=0.05):
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(clusters, width))
    gold = np.arange(count) % clusters
    made = centres[gold] + spread * draw.normal(size=(count, width))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32), gold


@pytest.mark.parametrize("clusters", [None, 4])
def test_plain_clusters_are_found_and_counted(clusters):
    vectors, gold = blobs()
    labels, tried = assign(vectors, clusters=clusters)
    assert cluster_scores(gold.tolist(), labels.tolist())["accuracy"] == 1.0
    if clusters is None:
        assert max(tried, key=tried.get) == 4
        assert len(tried) > 5


def test_hdbscan_finds_their_number_and_leaves_outliers_out():
    vectors, gold = blobs(count=80)
    stray = -vectors[:1].mean(0, keepdims=True) + 0.3
    labels, _ = assign(np.concatenate([vectors, stray]).astype(np.float32), method="hdbscan")
    assert labels[-1] == -1
    assert cluster_scores(gold.tolist(), labels[:-1].tolist())["accuracy"] == 1.0


def test_keywords_tell_groups_apart():
    texts = [
        "the cat sat on the mat",
        "the cats and the cat",
        "the dog dug 100 holes",
        "今年水果便宜",
        "水果很好吃，的的的",
    ]
    found = keywords(texts, ["cat", "cat", "dog", "zh", "zh"])
    assert found["cat"][0] == "cat"
    assert set(found["dog"]) == {"dog", "dug", "holes"}
    assert found["zh"][0] == "水果"
    assert all(len(word) > 1 for word in found["zh"])


def test_a_file_becomes_a_table_labels_and_a_map(command, folder, jsonl, rows, tmp_path):
    out = tmp_path / "out"
    code, told, err = command("cluster", folder, "--data", jsonl(rows), "--out", out, "--clusters", 3)
    assert (code, err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["clusters.json", "labels.jsonl", "map.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out"]
    labels = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in label.items() if k not in ("cluster", "nearness")} for label in labels] == rows
    table = json.loads((out / "clusters.json").read_text())
    assert [one["number"] for one in table["clusters"]] == [0, 1, 2]
    assert sum(one["size"] for one in table["clusters"]) == 60
    for one in table["clusters"]:
        own = [label["text"] for label in labels if label["cluster"] == one["number"]]
        assert set(one["nearest"]) <= set(own)
    assert {"nmi", "ari", "v_measure", "accuracy"} == set(table["scores"])
    assert table["scores"] == pytest.approx(
        cluster_scores([row["label"] for row in rows], [label["cluster"] for label in labels])
    )
    assert f"{table['scores']['nmi']:.4f}" in told
    assert str(out / "map.html") in told
    told = command("cluster", folder, "--data", jsonl(rows), "--out", f"{out}-2", "--clusters", 3, "--json").out
    counts = {"clusters": 3, "records": 60, "tokens_strided": 0, "tokens_dropped": 0, "told": []}
    assert counts | table["scores"] | {"tokens": 0, "seconds": 0} == json.loads(told) | {"tokens": 0, "seconds": 0}


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
def test_twice_is_the_same(predictor, jsonl, rows, tmp_path, method):
    data = jsonl(rows)
    for name in ("a", "b"):
        cluster_file(predictor.embedder(), data, tmp_path / name, identity={}, method=method, seed=5, quiet=True)
    for file in ("labels.jsonl", "clusters.json", "map.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_map_holds_all_it_shows(tmp_path, monkeypatch):
    vectors, gold = blobs()
    texts = [f"text {number} </script><b>&" for number in range(60)]
    clusters = [{"number": n, "size": 15, "keywords": ["<i>", "b"]} for n in range(4)]
    assert map_module.draw_map(tmp_path / "m.html", vectors, gold, texts, clusters, seed=0, title="<T>") == []
    page = (tmp_path / "m.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert "<title>&lt;T&gt;</title>" in page
    assert page.count("</script>") == 2, "a text must not end the script"
    data = json.loads(re.search(r'application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert [point[3] for point in data["points"]] == texts
    assert data["names"] == {str(n): "<i> b" for n in range(4)}
    places = np.array([point[:2] for point in data["points"]])
    assert np.abs(places).max() == pytest.approx(1, abs=1e-3)
    own = np.array([[np.linalg.norm(a - b) for b in places] for a in places])
    same = gold[:, None] == gold[None]
    assert own[same].mean() < own[~same].mean(), "clusters lie apart"
    monkeypatch.setattr(map_module, "MOST", 20)
    told = map_module.draw_map(tmp_path / "n.html", vectors, gold, texts, clusters, seed=0)
    assert told == ["the map shows 20 of 60 texts, drawn at random"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("texts", "clusters"), [(["a film"], 2), (["a film", "old town"], 3), (["a film"], None)])
def test_texts_that_are_the_same(predictor, jsonl, tmp_path, texts, clusters):
    data = jsonl([{"text": text} for text in texts * 8])
    found = cluster_file(
        predictor.embedder(), data, tmp_path / "out", identity={}, clusters=clusters, seed=1 << 40, quiet=True
    )
    assert [one.size for one in found.clusters] == [8] * len(texts)
    told = f"{len(texts)} clusters instead of {clusters}: the texts have no more different vectors"
    assert found.told == ([told] if clusters else [])
    assert (tmp_path / "out" / "map.html").is_file()


@pytest.mark.filterwarnings("error")
def test_no_more_clusters_are_tried_than_vectors_differ():
    vectors, _ = blobs(count=5, clusters=5)
    labels, tried = assign(np.repeat(vectors, 20, axis=0))
    assert set(tried) == {2, 3, 4, 5}
    assert len(set(labels.tolist())) == 5


def test_outliers_are_no_cluster(command, folder, jsonl, tmp_path, monkeypatch):
    labels = np.array([0, 0, 0, 1, 1, cluster_module.NOISE])
    monkeypatch.setattr(cluster_module, "assign", lambda *_, **__: (labels, {}))
    data = jsonl([{"text": text} for text in ("a", "film", "day", "old", "town", "cold")])
    words = ("--data", data, "--out", tmp_path / "out", "--method", "hdbscan", "--json")
    assert json.loads(command("cluster", folder, *words).out)["clusters"] == 2


def test_fields_that_give_way_are_told(predictor, jsonl, rows, tmp_path):
    data = jsonl([row | {"cluster": "mine", "nearness": 7} for row in rows])
    found = cluster_file(predictor.embedder(), data, tmp_path / "out", identity={}, clusters=2, quiet=True)
    assert found.told == ["the records' own 'cluster', 'nearness' gave way to what is written under that name"]


def test_a_record_without_text_is_known_before_the_vectors_are_computed(predictor, jsonl, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "_write_part", lambda *_: pytest.fail("computed"))
    data = jsonl([*rows, {"text_a": "a film", "text_b": "old town"}])
    with pytest.raises(DataError, match=r"data\.jsonl:61: no field 'text'"):
        cluster_file(predictor.embedder(), data, tmp_path / "out", identity={}, clusters=2, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_a_folder_where_we_are(command, folder, jsonl, rows, tmp_path, monkeypatch):
    data = jsonl(rows)
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for out, message in ((".", "is the folder that you are in; give another one"), ("..", "exists already; give ano")):
        code, told, err = command("cluster", folder, "--data", data, "--out", out)
        assert (code, told, err.count("\n")) == (2, "", 1)
        assert f"--out {out} {message}" in err
    assert command("cluster", folder, "--data", data, "--out", "../below/out", "--clusters", 2, "--quiet").code == 0
    assert [path.name for path in (tmp_path / "here" / "below").iterdir()] == ["out"]


def test_one_at_a_time_writes_clusters(predictor, jsonl, rows, tmp_path):
    with held(tmp_path / ".out.work"), pytest.raises(ConfigError, match="another process is writing to"):
        cluster_file(predictor.embedder(), jsonl(rows), tmp_path / "out", identity={}, clusters=2, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_a_stop_after_the_vectors_does_not_lose_them(predictor, jsonl, rows, tmp_path, monkeypatch):
    arguments = (predictor.embedder(), jsonl(rows), tmp_path / "out")
    monkeypatch.setattr(cluster_module, "assign", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cluster_file(*arguments, identity={}, clusters=2, quiet=True)
    (tmp_path / ".out.work" / "vectors.npy").write_bytes(b"what a kill leaves")
    monkeypatch.undo()
    monkeypatch.setattr(embedding, "_write_part", lambda *_: pytest.fail("computed again"))
    assert len(cluster_file(*arguments, identity={}, clusters=2, quiet=True).clusters) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out"]


def test_two_texts(predictor, jsonl, tmp_path):
    found = cluster_file(
        predictor.embedder(),
        jsonl([{"text": "a film"}, {"text": "cold day"}]),
        tmp_path / "out",
        identity={},
        clusters=2,
        quiet=True,
    )
    assert [one.size for one in found.clusters] == [1, 1]
    assert found.scores == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--clusters", "1"), "clusters is 1; wanted at least 2"),
        (("--clusters", "9"), "data.jsonl: there are 3 texts; wanted more, or fewer --clusters"),
        (
            ("--clusters", "2", "--method", "hdbscan"),
            "HDBSCAN finds the number of clusters itself; leave --clusters out",
        ),
        (("--min-size", "1", "--method", "hdbscan"), "min-size is 1; wanted at least 2"),
        (("--min-size", "9"), "a smallest cluster is HDBSCAN's; leave --min-size out, or use --method hdbscan"),
        (("--method", "kmean"), "--method is 'kmean'; wanted "),
    ],
)
def test_mistakes(command, folder, jsonl, tmp_path, words, message):
    data = jsonl([{"text": text} for text in ("a", "film", "day")])
    code, out, err = command("cluster", folder, "--data", data, "--out", tmp_path / "out", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_a_folder_that_is_there(command, folder, jsonl, rows, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    code, _, err = command("cluster", folder, "--data", jsonl(rows), "--out", tmp_path / "out")
    assert code == 2
    assert "exists already; give another folder, or remove it first" in err
