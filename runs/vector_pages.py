"""The rows of `runs.vectors` as tables."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.finetune import mean_and_deviation
from runs.exams import EXAMS, Exam
from runs.lessons import LESSONS
from runs.rows import Row

HEAD = """## Vectors of sentences

    command    make results   (python -m runs.vectors --shared ../shared/data)

Percentages, means ± sample deviation over the seeds of training, or of KMeans where nothing is trained. A text's vector
is the mean of its tokens', longer texts are pooled over windows. What stands after a model's name are the lessons that
it was then given: {lessons}. A rate is chosen on each lesson's dev by seed 0.
"""
STARTS = {  # what they knew before any lesson
    "all-MiniLM-L6-v2": "has learnt from a billion pairs, Quora's, SNLI's and Stack Exchange's among them: seen",
    "builtin": "has learnt all-MiniLM-L6-v2's vectors of words, passages of Wikipedia and CMRC2018's train questions",
    "encoder": "is the encoder before its heads: it has read masked text and looked for answers, but learnt no vectors "
    "of sentences (runs/checkpoints/encoder as of commit c76744e)",
}
TITLES = {
    "similarity": "Similarity: Spearman's correlation of cosines with people's grades (test)",
    "translation": "Translations found: accuracy",
    "retrieval": "Retrieval",
    "clusters": "Clusters: NMI / accuracy, KMeans with as many clusters as labels",
}
NAMES = {"spearman": "", "en_zh": "en→zh", "zh_en": "zh→en", "ndcg@10": "nDCG@10", "map": "MAP", "nmi": ""}


def section(rows: Sequence[Row]) -> str:
    """All tables; nothing where there is no row. Of a model that was measured with several weights, the latest."""
    found = systems(rows)
    if not found:
        return ""
    epochs = {lesson[0]: lesson[2] for row in rows for lesson in row.get("course", ())}
    told = "; ".join(
        f"*{name}*: {one.told}, {epochs[name]} epoch{'s' if epochs[name] > 1 else ''}"
        for name, one in LESSONS.items()
        if name in epochs
    )
    begun = [f"- **{name}** {note}." for name, note in STARTS.items() if any(one.startswith(name) for one in found)]
    parts = [HEAD.format(lessons=told or "none yet"), "\n".join(begun) + "\n" if begun else ""]
    if any(row["quick"] for row in rows):
        parts.append("Of a few records only (--quick): no result.\n")
    for kind, title in TITLES.items():
        exams = [exam for exam in EXAMS if exam.kind == kind and any(exam.name in own for own in found.values())]
        for some in _columns(exams):
            parts.append(f"### {title}\n" if some[0] == exams[0] else "")
            parts.append(_table(found, some))
        notes = [f"- **{exam.name}**: {exam.note}" for exam in exams if exam.note]
        if notes:
            parts.append("\n".join(notes) + "\n")
    return "\n".join(part for part in parts if part)


def systems(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """The scores of each system on each set, one of each seed."""
    latest = {row["system"]: (row["weights"], row.get("course")) for row in rows if row["measure"] == "exam"}
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        scores: dict[str, Row] = {}
        if row["measure"] == "words":
            scores = {name: _without(own, "words.") for name, own in row["systems"].items()}
        elif row["measure"] == "exam" and latest[row["system"]] == (row["weights"], row.get("course")):
            scores = {row["system"]: row["scores"]}
            if any(name.startswith("both.") for name in row["scores"]):
                scores[f"{row['system']} + BM25"] = _without(row["scores"], "both.")
        for system, own in scores.items():
            found.setdefault(system, {}).setdefault(row["exam"], []).append(own)
    return found


def _without(scores: Row, beginning: str) -> Row:
    """The scores that have it, or all where none has."""
    own = {name.removeprefix(beginning): value for name, value in scores.items() if name.startswith(beginning)}
    return own or scores


def _columns(exams: Sequence[Exam]) -> list[Sequence[Exam]]:
    """Clusters are many: those of one language at a time, six at most side by side."""
    if not exams or exams[0].kind != "clusters":
        return [exams] if exams else []
    by_language = [[exam for exam in exams if exam.languages == one] for one in (("en",), ("zh",))]
    return [own[at : at + 6] for own in by_language for at in range(0, len(own), 6)]


def _table(found: dict[str, dict[str, list[Row]]], exams: Sequence[Exam]) -> str:
    shown = [(exam, names) for exam in exams for names in _measures(exam)]
    heads = [
        " ".join(filter(None, (exam.name, " / ".join(filter(None, map(NAMES.get, names)))))) for exam, names in shown
    ]
    lines = [f"| system | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for system, own in found.items():
        cells = [_cell(own.get(exam.name, []), names) for exam, names in shown]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _measures(exam: Exam) -> list[tuple[str, ...]]:
    """The measures of each column of a set."""
    if exam.kind == "clusters":
        return [("nmi", "accuracy")]
    return [(name,) for name in exam.metrics[: 2 if exam.kind == "translation" else 1]]


def _cell(scores: Sequence[Row], names: Sequence[str]) -> str:
    if not scores:
        return "–"
    found = [mean_and_deviation([one[name] for one in scores]) for name in names if all(name in one for one in scores)]
    return " / ".join(found) or "–"
