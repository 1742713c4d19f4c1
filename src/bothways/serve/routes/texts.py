"""POST /v1/tokenize and POST /v1/attention: how a model reads a text."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from bothways.serve.attention import packed
from bothways.serve.problems import Problem
from bothways.serve.routes.common import as_json, models_of, router, texts
from bothways.serve.schemas import AttentionAnswer, AttentionRequest, TokenizeAnswer, TokenizeRequest
from bothways.serve.service import Served, unless_gone

routes = router("texts")
MAX_WEIGHTS = 24_000_000  # layers × heads × tokens²: one byte each, some megabytes when packed


@routes.post("/v1/tokenize", response_model=TokenizeAnswer, summary="A text's pieces and their places")
async def tokenize(request: Request, wanted: TokenizeRequest) -> Response:
    """Every piece of each text, however long it is."""
    served = models_of(request).find(wanted.model, "/v1/tokenize")
    records = texts(wanted.input)
    served.check(records)

    def told() -> Response:
        tokenizer = served.predictor.model.tokenizer
        return as_json(
            {
                "model": served.name,
                "max_length": served.predictor.max_length,
                "texts": [
                    {
                        "count": len(one.ids),
                        "tokens": [
                            {"id": int(id), "token": tokenizer.token(int(id)), "start": int(start), "end": int(end)}
                            for id, (start, end) in zip(one.ids, one.offsets, strict=True)
                        ],
                    }
                    for one in tokenizer.encode([record.fields["text"] for record in records])
                ],
            }
        )

    return await unless_gone(request, served.off_loop(told))


@routes.post("/v1/attention", response_model=AttentionAnswer, summary="Which token looks at which, in every head")
async def attention(request: Request, wanted: AttentionRequest) -> Response:
    """The weights of every layer and head; `bothways attention` writes the same as a page."""
    served = models_of(request).find(wanted.model, "/v1/attention")
    served.check(texts([text for text in (wanted.text, wanted.text_b) if text is not None]))
    return await unless_gone(request, _attention(served, wanted.text, wanted.text_b))


async def _attention(served: Served, text: str, text_b: str | None) -> Response:
    tokenizer, config = served.predictor.model.tokenizer, served.predictor.model.config
    given = [text] if text_b is None else [text, text_b]
    pieces = await served.off_loop(lambda: sum(len(one.ids) for one in tokenizer.encode(given)))
    tokens = min(pieces + len(given) + 1, served.predictor.max_length)
    longest = int((MAX_WEIGHTS / (config.num_hidden_layers * config.num_attention_heads)) ** 0.5)
    if tokens > longest:
        hint = "`bothways attention` writes a page for longer ones"
        raise Problem(422, f"the text has {tokens} tokens; at most {longest} can be shown here ({hint})")
    shown: dict[str, Any] = await served.call(lambda: served.predictor.attention(text, text_b), tokens=tokens)
    return await served.off_loop(lambda: as_json({"model": served.name, **packed(shown)}))
