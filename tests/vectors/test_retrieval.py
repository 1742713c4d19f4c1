"""Scores on a folder of corpus, queries and judgements: as by hand, over all documents or the judged ones."""

from __future__ import annotations

import gzip
import json

import bm25s
import pytest

from bothways.errors import DataError, ModelError
from bothways.infer.predictor import Predictor
from bothways.metrics.retrieval import retrieval
from bothways.models.model import Model
from bothways.nn.network import Network
from bothways.tasks.classify import ClassifySettings, ClassifyTask
from bothways.tasks.pair import PairSettings, PairTask
from bothways.vectors import retrieval as module
from bothways.vectors.index import Index
from bothways.vectors.indexing import change_index
from bothways.vectors.retrieval import evaluate_retrieval
from bothways.vectors.search import search
from bothways.vectors.words import words_of


@pytest.fixture
def corpus(tmp_path, texts):
    """Forty documents, ten queries; `write(judged)` adds the judgements."""

    def lines(name, given):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in given)

    lines("corpus", [{"_id": f"d{n}", "title": "a film" if n % 2 else "", "text": t} for n, t in enumerate(texts[:40])])
    lines("queries.test", [{"_id": f"q{n}", "text": text} for n, text in enumerate(texts[40:])])

    def write(judged):
        lines("qrels.test", [{"query_id": q, "corpus_id": d, "score": s} for q, d, s in judged])
        return tmp_path

    return write


RELEVANT = [("q0", "d3", 1), ("q0", "d8", 2), ("q1", "d5", 1), ("q4", "d0", 1)]
JUDGED = [*RELEVANT, ("q0", "d4", 0), ("q1", "d6", 0), ("q1", "d7", 0), ("q4", "d2", 0), ("q5", "d1", 0)]


def by_hand(predictor, texts, judged, candidates):
    documents = [("a film " if n % 2 else "") + text for n, text in enumerate(texts[:40])]
    there, run, qrels = predictor.embed(documents), {}, {}
    for query, document, score in judged:
        qrels.setdefault(query, {})[document] = score
    for query in qrels:
        scores = there @ predictor.embed([texts[40 + int(query[1:])]])[0]
        run[query] = [(f"d{n}", float(scores[n])) for n in range(40) if not candidates or f"d{n}" in qrels[query]]
    return retrieval(run, {query: given for query, given in qrels.items() if any(given.values())})


def test_over_the_whole_corpus(predictor, corpus, texts):
    found = evaluate_retrieval(predictor, corpus(RELEVANT))
    wanted = by_hand(predictor, texts, RELEVANT, candidates=False)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert (found["documents"], found["queries"], found["judged_only"], found["records"]) == (40, 3, False, 43)
    assert found["recall@100"] == 1.0
    assert {"words.map", "both.ndcg@10"} <= set(found)


def test_among_the_judged_where_they_are_listed(predictor, corpus, texts):
    found = evaluate_retrieval(predictor, corpus(JUDGED))
    wanted = by_hand(predictor, texts, JUDGED, candidates=True)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert (found["queries"], found["judged_only"], found["left_out"]) == (3, True, 1)
    assert found["recall@10"] == 1.0


def words_by_hand(texts, judged, candidates):
    """BM25's ranking, as an index finds it: only of what shares a word."""
    index = bm25s.BM25()
    documents = [words_of(("a film " if n % 2 else "") + text) for n, text in enumerate(texts[:40])]
    index.index(documents, show_progress=False)
    found = {}
    for query in dict.fromkeys(query for query, _, score in judged if score):
        asked = [word for word in words_of(texts[40 + int(query[1:])]) if word in index.vocab_dict]
        among = {document for own, document, _ in judged if own == query}
        scores = index.get_scores(asked)
        rows = [row for row in range(40) if scores[row] > 0 and (not candidates or f"d{row}" in among)]
        found[query] = [(f"d{row}", float(scores[row])) for row in rows]
    return found


@pytest.mark.parametrize("judged", [RELEVANT, [*JUDGED, *[("q0", f"d{n}", 0) for n in range(9, 40)]]])
def test_by_words_what_shares_none_is_not_found(predictor, corpus, texts, judged):
    found = evaluate_retrieval(None, corpus(judged))
    run = words_by_hand(texts, judged, candidates=found["judged_only"])
    assert any(len(own) < 30 for own in run.values())
    qrels = {query: {d: s for q, d, s in judged if q == query} for query in run}
    wanted = retrieval(run, qrels)
    assert {name: found[f"words.{name}"] for name in ("map", "recall@10", "mrr@10")} == pytest.approx(
        {name: wanted[name] for name in ("map", "recall@10", "mrr@10")}
    )


def test_by_both_is_what_an_index_finds(predictor, corpus, texts, jsonl, tmp_path):
    corpus(RELEVANT)
    (tmp_path / "corpus.jsonl.gz").unlink()
    rows = [{"_id": f"d{n}", "text": f"{texts[n % 40]} {texts[n // 40]}"} for n in range(250)]  # more than are joined
    jsonl(rows, "corpus.jsonl")
    found = evaluate_retrieval(predictor, tmp_path)
    change_index(tmp_path / "index", predictor.embedder(), data=tmp_path / "corpus.jsonl", made_by={}, quiet=True)
    queries = list(dict.fromkeys(query for query, _, _ in RELEVANT))
    asked = [texts[40 + int(query[1:])] for query in queries]
    hits = search(Index(tmp_path / "index"), predictor.embedder(), asked, k=100)
    run = {query: [(hit["id"], hit["score"]) for hit in own] for query, own in zip(queries, hits, strict=True)}
    wanted = retrieval(run, {query: {d: s for q, d, s in RELEVANT if q == query} for query in queries}, k=100)
    assert found["both.recall@100"] == wanted["recall@100"] < 1
    assert found["both.map"] == pytest.approx(wanted["map"], abs=0.01)


def test_a_model_reads_all_that_is_judged_and_the_best_by_words(predictor, corpus, texts, monkeypatch, tmp_path):
    model = on(predictor, PairTask(PairSettings(), ["no", "yes"]))
    monkeypatch.setattr(module, "DEPTH", 2)
    assert evaluate_retrieval(model, corpus(JUDGED))["records"] == 8  # more than two of q0
    assert evaluate_retrieval(model, corpus(RELEVANT))["records"] == 6
    rare = [("q0", "d3", 1)]
    corpus(rare)
    with gzip.open(tmp_path / "queries.test.jsonl.gz", "wt") as file:
        file.write(json.dumps({"_id": "q0", "text": "zzz"}) + "\n")
    found = evaluate_retrieval(model, tmp_path)
    assert (found["records"], found["map"]) == (0, 0.0)


def on(predictor, task):
    encoder = predictor.model.network.encoder
    return Predictor(Model(predictor.model.tokenizer, Network(encoder, task.heads(encoder)), task), device="cpu")


def test_a_model_that_reads_pairs(predictor, corpus, texts):
    model = on(predictor, PairTask(PairSettings(), ["no", "yes"]))
    found = evaluate_retrieval(model, corpus(JUDGED))
    run, qrels = {}, {}
    for query, document, score in JUDGED[:-1]:
        qrels.setdefault(query, {})[document] = score
        number = int(document[1:])
        text = ("a film " if number % 2 else "") + texts[number]
        scores = model.predict([(texts[40 + int(query[1:])], text)])[0]["scores"]
        run.setdefault(query, []).append((document, scores["yes"]))
    wanted = retrieval(run, qrels)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert (found["records"], found["tokens_dropped"]) == (8, 0)
    assert found["tokens"] > 8
    whole = evaluate_retrieval(model, corpus(RELEVANT))
    assert whole["recall@10"] <= 1.0
    assert "both.map" not in whole


def test_documents_without_a_word(predictor, corpus, tmp_path):
    corpus(RELEVANT)
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"_id": f"d{n}", "text": "!" * (n + 1)}) + "\n" for n in range(40))
    found = evaluate_retrieval(predictor, tmp_path)
    assert 0 < found["map"] <= 1
    assert found["words.map"] == 0


@pytest.mark.parametrize("blank", ["\u200b", " "])
def test_what_is_empty_to_the_model_is_no_pair(predictor, corpus, tmp_path, blank):
    model = on(predictor, PairTask(PairSettings(), ["no", "yes"]))
    corpus([*RELEVANT, ("q0", "d4", 0), ("q1", "d6", 0)])
    with gzip.open(tmp_path / "corpus.jsonl.gz", "at") as file:
        file.write(json.dumps({"_id": "blank", "text": blank}) + "\n")
    with gzip.open(tmp_path / "queries.test.jsonl.gz", "at") as file:
        file.write(json.dumps({"_id": "blank", "text": blank}) + "\n")
    with gzip.open(tmp_path / "qrels.test.jsonl.gz", "at") as file:
        for query, document in (("q0", "blank"), ("blank", "d3")):
            file.write(json.dumps({"query_id": query, "corpus_id": document, "score": 1}) + "\n")
    assert evaluate_retrieval(model, tmp_path)["records"] == 6


def test_a_document_twice(predictor, corpus, tmp_path):
    corpus(RELEVANT)
    (tmp_path / "corpus.jsonl.gz").unlink()
    rows = [{"_id": "d1", "text": "a"}, {"_id": "d2", "text": "b"}, {"_id": "d1", "text": "c"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"corpus\.jsonl:3: the id 'd1' is that of an earlier document too"):
        evaluate_retrieval(predictor, tmp_path)


def test_from_the_command_line(command, folder, corpus):
    code, out, err = command("evaluate", folder, "--data", corpus(RELEVANT), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["queries"] == 3
    code, out, err = command("evaluate", folder, "--data", corpus(JUDGED), "--json")
    assert (code, json.loads(out)["judged_only"], err.count("\n")) == (0, True, 1)
    assert err.startswith("only each query's judged documents are ranked, since the qrels list documents of grade 0;")
    assert command("evaluate", folder, "--data", corpus(JUDGED), "--quiet").err == ""
    code, out, err = command("evaluate", folder, "--data", corpus(JUDGED), "--json", "--candidates", "corpus")
    assert (code, json.loads(out)["judged_only"], err) == (0, False, "")
    code, _, err = command("evaluate", folder, "--data", corpus(RELEVANT), "--split", "dev")
    assert code == 2
    assert "no qrels.dev.jsonl or qrels/dev.tsv or qrels.jsonl; there are corpus.jsonl.gz" in err


def test_a_folder_of_beir_is_read_as_it_is(predictor, corpus, tmp_path):
    wanted = evaluate_retrieval(predictor, corpus(RELEVANT))
    (tmp_path / "qrels.test.jsonl.gz").unlink()
    (tmp_path / "queries.test.jsonl.gz").rename(tmp_path / "queries.jsonl.gz")
    (tmp_path / "qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, line)) for line in RELEVANT)]
    (tmp_path / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    found = evaluate_retrieval(predictor, tmp_path)
    assert found | {"seconds": 0} == wanted | {"seconds": 0}


def test_a_query_is_no_answer_to_itself(predictor, corpus, texts, tmp_path):
    corpus(RELEVANT)

    def write(own):
        rows = [{"_id": f"d{n}", "text": text} for n, text in enumerate(texts[:40])] + [{"_id": "q0", "text": own}]
        with gzip.open(tmp_path / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def found(model=predictor, **more):
        scores = evaluate_retrieval(model, tmp_path, **more)
        return {name: value for name, value in scores.items() if "@" in name}

    write("words that no query has")
    wanted = found()
    write(texts[40])
    assert found() == pytest.approx(wanted, abs=0.02)  # BM25 counts it, and does not find it
    corpus([*RELEVANT, ("q0", "q0", 1)])
    write(texts[40])
    assert found()["ndcg@10"] > wanted["ndcg@10"] + 0.05  # judged to be one, it is one


def test_what_is_ranked_can_be_said(predictor, corpus):
    usual = evaluate_retrieval(predictor, corpus(JUDGED))
    whole = evaluate_retrieval(predictor, corpus(JUDGED), candidates="corpus")
    assert (usual["judged_only"], whole["judged_only"], whole["records"]) == (True, False, 43)
    same = ("ndcg@10", "words.ndcg@10", "both.map")  # for the queries that count
    assert whole | {"left_out": 0, "seconds": 0} == evaluate_retrieval(predictor, corpus(RELEVANT)) | {"seconds": 0}
    few = evaluate_retrieval(predictor, corpus(RELEVANT), candidates="judged")
    assert few["records"] == 7
    assert few["ndcg@10"] > whole["ndcg@10"]
    assert {name: few[name] for name in same} != {name: usual[name] for name in same}


def test_mistakes(predictor, corpus, tmp_path):
    with pytest.raises(
        DataError, match="no query of test has a document of grade 1 or above, so there is nothing to find"
    ):
        evaluate_retrieval(predictor, corpus([("q0", "d9", 0)]))
    with pytest.raises(DataError, match=r"qrels\.test\.jsonl\.gz:1: document 'd99' is judged, but the corpus doesn't"):
        evaluate_retrieval(predictor, corpus([("q0", "d99", 1)]))
    with pytest.raises(DataError, match="query 'q99' is judged, but there is no such query"):
        evaluate_retrieval(predictor, corpus([("q99", "d9", 1)]))
    with pytest.raises(DataError, match=r"qrels\.test\.jsonl\.gz:1: score is 0\.5; wanted a whole number"):
        evaluate_retrieval(predictor, corpus([("q0", "d9", 0.5)]))
    with pytest.raises(ModelError, match="a model of classify doesn't find texts; wanted one of embed, pair or sim"):
        evaluate_retrieval(on(predictor, ClassifyTask(ClassifySettings(), "one", ["a", "b"])), corpus(RELEVANT))
    for name, row, told in [
        ("qrels.test", {"query": "q0", "corpus_id": "d3", "score": 1}, "'query_id'; there are 'query', "),
        ("corpus", {"_id": "d3", "body": "a film"}, "'text'; there are '_id', 'body'; rename it in the file: of a"),
    ]:
        with gzip.open(corpus(RELEVANT) / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        with pytest.raises(DataError, match=rf"{name}\.jsonl\.gz:1: no field {told}"):
            evaluate_retrieval(predictor, tmp_path)
