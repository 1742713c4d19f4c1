// Attention as pictures: all heads small, one large, and the tokens themselves to point at.
async function unpacked(data) {
  const squeezed = Uint8Array.from(atob(data.weights), character => character.charCodeAt(0));
  const stream = new Blob([squeezed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function ink() {
  const [r, g, b] = getComputedStyle(document.documentElement).getPropertyValue("--tint").split(",").map(Number);
  return { r, g, b };
}

// Bytes (rows × columns) as a picture of at most `limit` on a side; where several fall on one point, the largest shows.
function paint(canvas, bytes, rows, columns, limit) {
  const height = Math.min(rows, limit), width = Math.min(columns, limit), { r, g, b } = ink();
  canvas.width = width; canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), seen = new Uint8Array(width * height);
  for (let i = 0; i < rows; i++) {
    const y = Math.floor(i * height / rows) * width;
    for (let j = 0; j < columns; j++) {
      const at = y + Math.floor(j * width / columns), value = bytes[i * columns + j];
      if (value > seen[at]) seen[at] = value;
    }
  }
  for (let at = 0; at < seen.length; at++) image.data.set([r, g, b, seen[at]], 4 * at);
  context.putImageData(image, 0, 0);
}

// A view of {tokens, keys?, layers, heads, weights, dropped}; `keys` are the tokens looked at when they are others.
async function showAttention(root, data) {
  const bytes = await unpacked(data), words = say.words;
  const rows = data.tokens, columns = data.keys ?? data.tokens, area = rows.length * columns.length;
  const head = (layer, number) => bytes.subarray((layer * data.heads + number) * area, (layer * data.heads + number + 1) * area);
  const weight = value => (value / 255) ** 2;
  let chosen = [0, 0], token = Math.min(1, rows.length - 1), from = true;

  const title = h("h2", { "aria-live": "polite" }), said = h("p", { class: "said quiet", role: "status" }, words.trace);
  const large = h("canvas", { role: "img", tabindex: "0", "aria-label": words.matrix });
  const strip = h("div", { class: "strip", role: "group", "aria-label": words.tokens });
  const otherStrip = h("div", { class: "strip", role: "group", "aria-label": words.source });
  const grid = h("div", { class: "heads", role: "group", "aria-label": words.heads });
  const room = Math.min(560, document.documentElement.clientWidth - 80);
  grid.style.setProperty("--cell", `${Math.max(28, Math.min(64, Math.floor(room / data.heads) - 7))}px`);
  grid.style.gridTemplateColumns = `auto repeat(${data.heads}, auto)`;
  const small = [];
  grid.append(h("span", { class: "axis" }));
  for (let number = 0; number < data.heads; number++) grid.append(h("span", { class: "axis", "aria-hidden": "true" }, String(number + 1)));
  for (let layer = 0; layer < data.layers; layer++) {
    grid.append(h("span", { class: "axis", "aria-hidden": "true" }, String(layer + 1)));
    for (let number = 0; number < data.heads; number++) {
      const canvas = h("canvas"), name = words.head_name(layer + 1, number + 1);
      const button = h("button", { type: "button", "aria-label": name, title: name, tabindex: small.length ? "-1" : "0",
        onclick: () => choose(layer, number), onkeydown: event => move(event, layer, number) }, canvas);
      small.push({ button, canvas, layer, number });
      grid.append(button);
    }
  }

  function move(event, layer, number) {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const l = (layer + step[0] + data.layers) % data.layers, n = (number + step[1] + data.heads) % data.heads;
    choose(l, n);
    small[l * data.heads + n].button.focus();
  }

  function choose(layer, number) {
    chosen = [layer, number];
    title.textContent = words.head_name(layer + 1, number + 1);
    for (const one of small) {
      const here = one.layer === layer && one.number === number;
      one.button.setAttribute("aria-pressed", here);
      one.button.tabIndex = here ? 0 : -1;
    }
    paint(large, head(layer, number), rows.length, columns.length, 1024);
    trace();
  }

  function trace() {
    const values = head(...chosen), { r, g, b } = ink();
    const list = from ? columns : rows;
    const worth = list.map((_, at) => from ? values[token * columns.length + at] : values[at * columns.length + token]);
    const most = Math.max(...worth.map(weight), 1e-6);
    for (const button of pointed().children) button.style.backgroundColor = "";
    [...coloured().children].forEach((button, at) => {
      const value = weight(worth[at] ?? 0);
      button.style.backgroundColor = `rgba(${r},${g},${b},${(0.75 * value / most).toFixed(3)})`;
      button.title = value.toFixed(3);
    });
    [...pointed().children].forEach((button, at) => {
      button.classList.toggle("here", at === token);
      button.tabIndex = at === token ? 0 : -1;
    });
    const best = worth.indexOf(Math.max(...worth)), own = from ? rows[token] : columns[token];
    const [a, c] = from ? [own, list[best]] : [list[best], own];
    tell(a, c, weight(worth[best]));
  }

  function tell(a, b, value) { said.textContent = words.pair_said(`“${a}”`, `“${b}”`, value.toFixed(3)); }

  function go(at) {
    const count = pointed().children.length;
    token = (at + count) % count;
    trace();
  }

  // The strip that is pointed at, and the strip that is coloured; where a text looks at itself they are one.
  const pointed = () => data.keys && !from ? otherStrip : strip, coloured = () => data.keys && from ? otherStrip : strip;

  function fill(element, list, active) {
    element.replaceChildren(...list.map((piece, at) => h("button", {
      type: "button", class: /^\[.*\]$/.test(piece) ? "special" : null, disabled: !active,
      onmouseenter: () => active && go(at), onfocus: () => active && at !== token && go(at), onclick: () => active && go(at),
      onkeydown: event => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) { event.preventDefault(); go(at + step); element.children[token].focus(); }
      },
    }, piece)));
  }

  function tokens() {
    fill(strip, rows, !data.keys || from);
    if (data.keys) fill(otherStrip, columns, !from);
    token = Math.min(token, pointed().children.length - 1);
  }

  large.addEventListener("mousemove", event => {
    const box = large.getBoundingClientRect();
    const i = Math.min(rows.length - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * rows.length)));
    const j = Math.min(columns.length - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * columns.length)));
    token = from ? i : j;
    trace();
    tell(rows[i], columns[j], weight(head(...chosen)[i * columns.length + j]));
  });
  large.addEventListener("keydown", event => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); go(token + step); }
  });

  const way = (value, text) => h("label", {}, h("input", { type: "radio", name: "way", checked: from === value,
    onchange: () => { from = value; tokens(); trace(); } }), text);
  const view = h("div", { class: "attention" },
    data.dropped ? h("p", { class: "quiet" }, words.unread(data.dropped)) : null,
    h("div", {}, h("p", { class: "quiet" }, words.heads), h("div", { class: "scroll" }, grid)),
    title,
    h("div", { class: "one-head" },
      h("div", { class: "matrix" }, large, said),
      h("div", {}, h("div", { class: "switch", role: "radiogroup" }, way(true, words.looks), way(false, words.seen)), strip,
        data.keys ? h("p", { class: "quiet" }, words.source) : null, data.keys ? otherStrip : null)));
  root.replaceChildren(view);
  tokens();
  for (const one of small) paint(one.canvas, head(one.layer, one.number), rows.length, columns.length, 72);
  choose(0, 0);
  const repaint = () => { for (const one of small) paint(one.canvas, head(one.layer, one.number), rows.length, columns.length, 72); choose(...chosen); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
}

// The encoder's attention; where a text was written, also which words of the source each written one looked at.
async function showAllAttention(root, data) {
  if (!data.cross) return showAttention(root, data);
  const view = h("div"), show = kind => showAttention(view, kind === "cross" ? data.cross : data);
  const way = (kind, checked) => h("label", {}, h("input", { type: "radio", name: "kind", checked, onchange: () => show(kind) }), say.words[kind]);
  root.replaceChildren(h("div", { class: "switch", role: "radiogroup", "aria-label": say.words.kind }, way("cross", true), way("encoder", false)), view);
  return show("cross");
}
