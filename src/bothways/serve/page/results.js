// Predictions as pictures: what a prediction holds says how it is shown, so every task (and each part of "multi") is.
const percent = value => `${(100 * value).toFixed(value > 0.0995 ? 0 : 1)}%`;

// A text's part by offsets that count characters, as Python does.
function cutter(text) {
  const characters = Array.from(text);
  return (start, end) => characters.slice(start, end).join("");
}

function marked(text, spans, wrap) {
  const cut = cutter(text), parts = [], length = Array.from(text).length;
  let at = 0;
  for (const span of [...spans].sort((a, b) => a.start - b.start)) {
    if (span.start < at) continue;
    parts.push(cut(at, span.start), wrap(cut(span.start, span.end), span));
    at = span.end;
  }
  parts.push(cut(at, length));
  return h("p", { class: "reading" }, parts.filter(part => part !== ""));
}

function entities(text, spans) {
  const view = marked(text, spans, (piece, span) => h("span", { class: "entity", title: span.score == null ? null : percent(span.score) },
    piece, h("span", { class: "label" }, span.label)));
  return spans.length ? view : [view, h("p", { class: "quiet" }, say.words.none)];
}

// Spans of words (first to last), for records that were given as tokens: placed in the words joined by spaces.
function placed(tokens, spans) {
  const starts = [], sizes = tokens.map(token => Array.from(token).length);
  let at = 0;
  for (const size of sizes) { starts.push(at); at += size + 1; }
  return spans.map(span => "start" in span ? span : { ...span, start: starts[span.first], end: starts[span.last] + sizes[span.last] });
}

function bars(scores, lead = true) {
  const sorted = Object.entries(scores).sort((a, b) => b[1] - a[1]).slice(0, 20);
  return h("ul", { class: "bars", "aria-label": say.words.labels }, sorted.map(([label, score], at) => {
    const fill = h("div", { class: "fill" });
    fill.style.width = `${Math.max(0.5, 100 * score)}%`;
    return h("li", { class: at || !lead ? null : "best" }, h("span", {}, label), h("div", { class: "track" }, fill), h("span", { class: "number" }, percent(score)));
  }));
}

function big(text, note) { return h("p", { class: "big" }, text, note ? h("small", {}, note) : null); }

// What all heads find in a text: entities in it, words with their parts of speech, labels.
function analysed(found) {
  const words = say.words, parts = [];
  if (found.entities) parts.push(h("h2", {}, words.task.tag), entities(found.text, found.entities));
  if (found.words) {
    parts.push(h("h2", {}, words.task.segment), h("p", { class: "reading" }, found.words.flatMap(word =>
      [h("span", { class: "word" }, word.text, word.pos ? [" ", h("small", { class: "quiet" }, word.pos)] : []), " "])));
  }
  for (const [name, value] of Object.entries(found)) {
    if (value?.label) parts.push(h("h2", {}, words.found[name] ?? name), big(value.label, percent(value.score)));
  }
  return parts.flat();
}

// One prediction for one record, as elements.
function shown(prediction, record) {
  const words = say.words, text = record.text ?? (record.tokens ?? []).join(" ");
  if (prediction.error) return [h("p", { class: "status wrong" }, prediction.error)];
  if (prediction.masks) {
    return prediction.masks.map((mask, at) => [
      h("h2", {}, words.fillings(at + 1, prediction.masks.length)),
      marked(text, [{ ...mask, label: "" }], () => h("mark", {}, mask.fillings[0].token)),
      bars(Object.fromEntries(mask.fillings.map(one => [one.token, one.score]))),
    ]).flat();
  }
  if ("answer" in prediction) {
    const rest = prediction.candidates.filter(one => one.answer !== prediction.answer).slice(0, 3);
    return [
      prediction.answerable ? big(prediction.answer, words.answer_score(prediction.score.toFixed(3))) : big(words.no_answer),
      marked(record.context, prediction.answerable ? [prediction] : [], piece => h("mark", {}, piece)),
      rest.length ? [h("h2", {}, words.next), bars(Object.fromEntries(rest.map(one => [one.answer, one.score])), false)] : [],
    ].flat();
  }
  if ("choice" in prediction) {
    const scores = {};
    record.choices.forEach((choice, at) => { scores[choice] = prediction.scores[at]; });
    return [big(prediction.text, percent(prediction.score)), bars(scores)];
  }
  if ("intent" in prediction) return [h("h2", {}, words.intent), big(prediction.intent, percent(prediction.score)), entities(text, placed(record.tokens ?? [], prediction.slots))].flat();
  if ("arguments" in prediction) {
    const [verb] = placed(record.tokens, [{ first: prediction.predicate, last: prediction.predicate, label: "V" }]);
    return [entities(text, [verb, ...placed(record.tokens, prediction.arguments)])].flat();
  }
  if (prediction.words && Array.isArray(prediction.spans?.[0] ?? (prediction.tags ? null : []))) {
    return [h("p", { class: "reading" }, prediction.words.map(word => h("span", { class: "word" }, word)))];
  }
  if (prediction.spans) return [entities(text, placed(record.tokens ?? [], prediction.spans))].flat();
  if (prediction.tags) {
    return [h("p", { class: "reading" }, prediction.words.map((word, at) => h("span", { class: "word" }, word, " ", h("small", { class: "quiet" }, prediction.tags[at]))))];
  }
  if (prediction.labels) return [big(prediction.labels.join(" · ") || "—"), bars(prediction.scores)];
  if ("label" in prediction) return [big(prediction.label, percent(prediction.score)), bars(prediction.scores)];
  if ("value" in prediction) return [h("h2", {}, record.text_b == null ? words.number : words.value), big(prediction.value.toFixed(2))];
  if (prediction.vector) {
    const start = prediction.vector.slice(0, 6).map(one => one.toFixed(3)).join(", ");
    return [big(String(prediction.vector.length), "dimensions"), h("p", { class: "quiet" }, `[${start}, …]`)];
  }
  return [];
}

// The predictions of a model of several tasks, each under its name (which may be that of a field: "words").
function everyPart(prediction, record) {
  const found = Object.entries(prediction).filter(([name]) => !["tokens", "left_out"].includes(name))
    .map(([name, value]) => [h("h2", {}, name), ...shown(value, record)]);
  const unread = Object.entries(prediction.left_out ?? {}).map(([name, why]) => [h("h2", {}, name), h("p", { class: "quiet" }, why)]);
  return [...found, ...unread].flat();
}

// What was read of a text, in words.
function readingNote(tokens, took) {
  const words = say.words, notes = [];
  if (tokens) {
    notes.push(words.kept(tokens.kept));
    if (tokens.strided) notes.push(words.strided(tokens.strided));
    if (tokens.dropped) notes.push(words.dropped(tokens.dropped));
  }
  if (took != null) notes.push(words.ms(Math.round(took)));
  return notes.join(" · ");
}

// How alike each two of some texts are: `value(i, j)` as a table, coloured from `low` to `high`.
function heat(texts, value, low, high) {
  const { r, g, b } = ink();
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const number = at => h("th", { scope: "col", title: texts[at] }, String(at + 1));
  return h("div", { class: "scroll" }, h("table", { class: "heat" },
    h("caption", { class: "quiet", hidden: true }, say.words.heat),
    h("thead", {}, h("tr", {}, h("td", {}), texts.map((_, at) => number(at)))),
    h("tbody", {}, texts.map((text, i) => h("tr", {}, h("th", { scope: "row" }, h("b", {}, String(i + 1)), text),
      texts.map((other, j) => {
        const one = value(i, j), share = Math.min(1, Math.max(0, (one - low) / (high - low || 1)));
        const cell = h("td", { title: `${text}\n${other}` }, (Math.abs(one) < 0.005 ? 0 : one).toFixed(2));
        cell.style.backgroundColor = `rgba(${r},${g},${b},${(0.06 + 0.84 * share).toFixed(3)})`;
        if (share > 0.62) cell.style.color = dark ? "#1c1210" : "#ffffff";
        return cell;
      }))))));
}
