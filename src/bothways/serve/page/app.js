// The page: which model, which task, what is asked, and what comes back.
const $ = id => document.getElementById(id);
const MOST_LINES = 12;
const state = { models: [], model: null, mode: null, values: {}, running: null };

// ------------------------------------------------------------------------------------------------ the server

async function ask(path, body, signal) {
  let response;
  try {
    response = await fetch(path, body ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal } : { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(say.words.not_reached);
  }
  if (!response.ok) {
    let message = response.statusText;
    try { message = (await response.json()).error.message; } catch { /* no JSON: a proxy's answer */ }
    throw new Error(message.replace(/^<\w+>:(\d+: )?/, ""));
  }
  return response;
}

const answer = async (path, body, signal) => (await ask(path, body, signal)).json();

// ------------------------------------------------------------------------------------------------ the tasks

const split = text => text.match(/[\p{Script=Latin}\p{N}]+(?:['’][\p{Script=Latin}]+)*|\S/gu) ?? [];
const lines = text => text.split("\n").map(line => line.trim()).filter(Boolean);

const FIELDS = {
  pair: ["text_a", "text_b"], similarity: ["text_a", "text_b"], qa: ["question", "context"], choice: ["context", "question", "choices"],
  roles: ["text", "predicate"], fill: ["masked"], generate: ["source"], compare: ["lines"], attention: ["text", "second"],
};
const ONE_LINE = new Set(["question"]);

const RECORDS = {
  pair: v => ({ text_a: v.text_a, text_b: v.text_b }),
  similarity: v => ({ text_a: v.text_a, text_b: v.text_b }),
  qa: v => ({ question: v.question, context: v.context }),
  choice: v => ({ context: v.context, question: v.question, choices: lines(v.choices) }),
  roles: v => ({ tokens: split(v.text), predicate: Number(v.predicate ?? 0) }),
  fill: v => ({ text: v.masked }),
};

function modes() {
  const { task, routes } = state.model, found = [];
  if (routes.includes("/v1/generate")) found.push("generate");
  if (routes.includes("/v1/analyze") && task === "multi") found.push("analyze");
  if (state.model.fills) found.push("fill");
  if (routes.includes("/v1/predict") && task !== "generate" && task !== "embed") found.push(task);
  if (routes.includes("/v1/embeddings") || task === "similarity") found.push("compare");
  if (routes.includes("/v1/attention")) found.push("attention");
  return found;
}

async function predict(mode, values, signal) {
  const record = (RECORDS[mode] ?? (v => ({ text: v.text })))(values), part = mode === "fill" ? state.model.fills : null;
  if (part) record.task = part;
  const { predictions: [prediction] } = await answer("/v1/predict", { model: state.model.id, inputs: [record] }, signal);
  if (prediction.error) throw new Error(prediction.error);
  return { tokens: prediction.tokens, view: (mode === "multi" ? everyPart : shown)(part ? prediction[part] : prediction, record) };
}

async function analyze(values, signal) {
  const { texts: [found] } = await answer("/v1/analyze", { model: state.model.id, input: values.text }, signal);
  return { tokens: found.tokens, view: analysed(found) };
}

async function compare(values, signal) {
  const texts = lines(values.lines);
  if (texts.length < 2) throw new Error(say.words.two);
  if (texts.length > MOST_LINES) throw new Error(say.words.many(MOST_LINES));
  if (state.model.task === "similarity") {
    const inputs = texts.flatMap(a => texts.map(b => [a, b]));
    const { predictions } = await answer("/v1/predict", { model: state.model.id, inputs }, signal);
    const wrong = predictions.find(one => one.error);
    if (wrong) throw new Error(wrong.error);
    const values = predictions.map(one => one.value);
    return { view: [heat(texts, (i, j) => values[i * texts.length + j], Math.min(...values), Math.max(...values))] };
  }
  const { data } = await answer("/v1/embeddings", { model: state.model.id, input: texts }, signal);
  const units = data.map(({ embedding }) => { const size = Math.hypot(...embedding) || 1; return embedding.map(one => one / size); });
  const cosine = (i, j) => units[i].reduce((sum, one, at) => sum + one * units[j][at], 0);
  return { view: [heat(texts, cosine, 0, 1)] };
}

async function attention(values, signal) {
  const data = await answer("/v1/attention", { model: state.model.id, text: values.text, text_b: values.second || null }, signal);
  const root = h("div");
  await showAllAttention(root, data);
  return { tokens: { kept: data.tokens.length, dropped: data.dropped }, view: [root] };
}

async function generate(values, signal) {
  const response = await ask("/v1/generate", { model: state.model.id, input: values.source }, signal);
  const written = h("p", { class: "written open" });
  $("result").replaceChildren(written);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", tokens, unfinished;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const kind = /^event: (.*)$/m.exec(event)?.[1] ?? "text", data = JSON.parse(/^data: (.*)$/m.exec(event)[1]);
      if (kind === "error") throw new Error(data.message);
      if (kind === "text") written.append(data.text);
      if (kind === "done") ({ tokens, unfinished } = data);
    }
  }
  written.classList.remove("open");
  return { tokens, view: [written, ...(unfinished ? [h("p", { class: "quiet" }, say.words.unfinished)] : [])] };
}

async function run() {
  state.running?.abort();
  const words = say.words, { mode, values } = state, needed = (FIELDS[mode] ?? ["text"]).filter(name => !["second", "predicate", "question"].includes(name));
  if (needed.some(name => !(values[name] ?? "").trim())) return tell(words.empty, true);
  const running = state.running = new AbortController(), begun = performance.now();
  $("go").setAttribute("aria-busy", "true");
  tell(words.working);
  try {
    const { tokens, view } = await ({ analyze, compare, attention, generate }[mode] ?? (v => predict(mode, v, running.signal)))(values, running.signal);
    tell(readingNote(tokens, performance.now() - begun));
    $("result").replaceChildren(...view);
  } catch (error) {
    if (error.name === "AbortError") return;
    $("result").replaceChildren();
    tell(error.message, true);
  } finally {
    if (state.running === running) $("go").removeAttribute("aria-busy");
  }
}

// ------------------------------------------------------------------------------------------------ what is seen

function tell(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

function field(name) {
  const words = say.words, id = `field-${name}`, wide = state.mode === "compare";
  if (name === "predicate") return h("fieldset", { class: "field", id }, h("legend", { class: "quiet" }, words.predicate), h("div", { class: "words", id: "predicate" }));
  const input = ONE_LINE.has(name) ? h("input", { type: "text", id, autocomplete: "off" })
    : h("textarea", { id, rows: name === "context" || wide ? 6 : 3, spellcheck: "false" });
  input.value = state.values[name] ?? "";
  input.addEventListener("input", () => { state.values[name] = input.value; if (state.mode === "roles") predicates(); });
  return h("label", { class: "field", for: id }, h("span", {}, words[name]), input);
}

function predicates() {
  const box = $("predicate"), words = split(state.values.text ?? "");
  const chosen = Math.min(Number(state.values.predicate ?? 1), Math.max(words.length - 1, 0));
  state.values.predicate = chosen;
  box.replaceChildren(...words.map((word, at) => h("label", {}, h("input", { type: "radio", name: "predicate", value: at, checked: at === chosen,
    onchange: () => { state.values.predicate = at; } }), h("span", {}, word))));
}

function choose(mode) {
  state.running?.abort();
  state.mode = mode;
  const words = say.words, names = FIELDS[mode] ?? ["text"];
  document.body.classList.toggle("wide-page", mode === "attention");
  for (const tab of $("tabs").children) {
    const here = tab.dataset.mode === mode;
    tab.setAttribute("aria-selected", here);
    tab.tabIndex = here ? 0 : -1;
    if (here) $("panel").setAttribute("aria-labelledby", tab.id);
  }
  $("fields").replaceChildren(...names.map(field));
  if (mode === "roles") predicates();
  $("go").textContent = mode === "generate" ? words.task.generate : words.go;
  $("hint").textContent = matchMedia("(pointer: fine)").matches ? words.hint : "";
  $("examples").replaceChildren(...(EXAMPLES[mode] ?? []).map(example => h("button", { type: "button", onclick: () => {
    names.forEach((name, at) => { state.values[name] = name === "predicate" ? 1 : example[at] ?? ""; });
    choose(mode);
    run();
  } }, example.filter(Boolean).join(" · ").replaceAll("\n", " / "))));
  $("result").replaceChildren();
  tell("");
}

function tabs() {
  const found = modes();
  $("tabs").replaceChildren(...found.map(mode => h("button", { type: "button", role: "tab", id: `tab-${mode}`, "data-mode": mode, "aria-controls": "panel",
    onclick: () => choose(mode), onkeydown: event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = found[(found.indexOf(mode) + step + found.length) % found.length];
      choose(next);
      $(`tab-${next}`).focus();
    } }, say.words.task[mode] ?? mode)));
  choose(found.includes(state.mode) ? state.mode : found[0]);
}

function draw() {
  document.documentElement.lang = say.language === "zh" ? "zh-Hans" : "en";
  $("language").textContent = say.words.other;
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say.words[element.dataset.say];
  if (state.model) tabs();
}

async function begin() {
  draw();
  tell(say.words.loading);
  try {
    state.models = (await answer("/v1/models")).data;
  } catch (error) {
    return tell(error.message, true);
  }
  state.model = state.models[0];
  $("model").replaceChildren(...state.models.map(model => h("option", { value: model.id }, model.id)));
  $("model-pick").hidden = state.models.length < 2;
  draw();
}

$("form").addEventListener("submit", event => { event.preventDefault(); run(); });
$("form").addEventListener("keydown", event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); } });
$("language").addEventListener("click", () => { say.change(); draw(); });
$("model").addEventListener("change", () => { state.model = state.models.find(model => model.id === $("model").value); draw(); });
begin();
