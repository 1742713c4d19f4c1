// The OpenAPI document as a page: each route, its fields, what it answers, and a line to try it with.
const resolve = (document_, schema) => schema?.$ref ? resolve(document_, document_.components.schemas[schema.$ref.split("/").pop()]) : schema;

function kind(document_, schema) {
  const one = resolve(document_, schema);
  if (!one) return "";
  if (one.enum) return one.enum.map(value => JSON.stringify(value)).join(" | ");
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (one.anyOf) return [...new Set(one.anyOf.map(each => kind(document_, each)))].join(" | ");
  if (one.type === "array") return `[${one.prefixItems ? one.prefixItems.map(each => kind(document_, each)).join(", ") : kind(document_, one.items)}, …]`;
  return one.type ?? "any";
}

function fields(document_, schema) {
  const one = resolve(document_, schema), required = new Set(one?.required ?? []);
  return h("table", {}, Object.entries(one?.properties ?? {}).map(([name, value]) => h("tr", {},
    h("td", {}, h("code", {}, name), required.has(name) ? null : h("span", { class: "quiet" }, ` ${say.words.optional}`)),
    h("td", {}, h("code", { class: "quiet" }, kind(document_, value)), " ", value.description ?? resolve(document_, value)?.description ?? ""))));
}

const SENT = {
  "/v1/predict": { inputs: ["Ada Lovelace lived in London."] }, "/v1/analyze": { input: "小明在北京工作。" }, "/v1/embeddings": { input: ["Ada wrote it."] },
  "/v1/rerank": { query: "Who wrote it?", documents: ["Ada wrote it.", "It rains."] }, "/v1/generate": { input: "Ada wrote it." },
  "/v1/tokenize": { input: "Ada wrote it." }, "/v1/attention": { text: "Ada wrote it." },
};

async function show() {
  const document_ = await (await fetch("/openapi.json")).json(), words = say.words;
  document.getElementById("routes").replaceChildren(h("p", {}, document_.info.description),
    ...Object.entries(document_.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, route]) => {
      const sent = route.requestBody?.content["application/json"].schema;
      const [, told] = Object.entries(route.responses["200"]?.content ?? {})[0] ?? [];
      const curl = sent ? `curl ${location.origin}${path} \\\n  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(SENT[path])}'` : `curl ${location.origin}${path}`;
      return h("section", { class: "route" },
        h("h2", {}, h("code", {}, `${method.toUpperCase()} ${path}`)),
        h("p", {}, route.summary, ". ", h("span", { class: "quiet" }, route.description ?? "")),
        h("pre", {}, curl),
        sent ? [h("p", { class: "quiet" }, words.request), fields(document_, sent)] : null,
        told?.schema?.$ref ? [h("p", { class: "quiet" }, words.answer), fields(document_, told.schema)] : null);
    })));
}
show();
