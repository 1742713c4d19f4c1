"""POST /v1/tokenize and POST /v1/attention: how a model reads a text."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from bothways.serve.attention import packed
from bothways.serve.problems import Problem
from bothways.serve.queue import Over
from bothways.serve.routes.common import as_json, json_response, models_of, router, spelt_json, texts
from bothways.serve.schemas import AttentionAnswer, AttentionRequest, TokenizeAnswer, TokenizeRequest
from bothways.serve.service import Served, unless_gone

routes = router("texts")
MAX_WEIGHTS = 24_000_000  # layers × heads × tokens²: one byte each, some megabytes when packed


@routes.post("/v1/tokenize", response_model=TokenizeAnswer, summary="A text's pieces and their places")
async def tokenize(request: Request, wanted: TokenizeRequest) -> Response:
    """Every piece of each text, however long it is."""
    served = models_of(request).find(wanted.model, "/v1/tokenize")
    records = texts(wanted.input)

    def told(over: Over) -> Response:
        # Spelt text by text, for as objects the pieces of all of them would take some hundreds of bytes each.
        every = (record.fields["text"] for record in records)
        spelt = [spelt_json(_pieces(served, text)) for text in every if not over()]
        head = spelt_json({"model": served.name, "max_length": served.predictor.max_length})
        return json_response(f'{head[:-1]},"texts":[{",".join(spelt)}]}}')

    return await unless_gone(request, served.aside(records, told))


def _pieces(served: Served, text: str) -> dict[str, Any]:
    tokenizer = served.predictor.model.tokenizer
    (found,) = tokenizer.encode([text])
    tokens = [
        {"id": id, "token": tokenizer.token(id), "start": start, "end": end}
        for id, (start, end) in zip(found.ids.tolist(), found.offsets.tolist(), strict=True)
    ]
    return {"count": len(tokens), "tokens": tokens}


@routes.post("/v1/attention", response_model=AttentionAnswer, summary="Which token looks at which, in every head")
async def attention(request: Request, wanted: AttentionRequest) -> Response:
    """The weights of every layer and head; `bothways attention` writes the same as a page."""
    served = models_of(request).find(wanted.model, "/v1/attention")
    return await unless_gone(request, _attention(served, wanted.text, wanted.text_b))


async def _attention(served: Served, text: str, text_b: str | None) -> Response:
    tokenizer, config = served.predictor.model.tokenizer, served.predictor.model.config
    given = [text] if text_b is None else [text, text_b]
    pieces = await served.aside(texts(given), lambda over: sum(len(one.ids) for one in tokenizer.encode(given)))
    tokens = min(pieces + len(given) + 1, served.predictor.max_length)
    longest = int((MAX_WEIGHTS / (config.num_hidden_layers * config.num_attention_heads)) ** 0.5)
    if tokens > longest:
        hint = "`bothways attention` writes a page for longer ones"
        raise Problem(422, f"the text has {tokens} tokens; at most {longest} can be shown here ({hint})")
    written = served.batcher.positions if text_b is None else 0  # a model that writes also writes for it
    shown: dict[str, Any] = await served.call(
        lambda over: served.predictor.attention(text, text_b, stop=over), tokens=tokens + written
    )
    return await served.off_loop(lambda: as_json({"model": served.name, **packed(shown)}))
