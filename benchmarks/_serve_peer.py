"""The peer of `serve.py`: what most people would write with FastAPI and sentence-transformers."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Wanted(BaseModel):
    """As OpenAI's clients send it."""

    input: list[str]


def main(folder: str, port: int) -> None:
    """Serve it."""
    model, app = SentenceTransformer(folder, device="cpu"), FastAPI()

    # A plain function: FastAPI runs it in its threads, so the event loop stays free, as it should.
    @app.post("/v1/embeddings")
    def embeddings(wanted: Wanted) -> dict[str, object]:
        vectors = model.encode(wanted.input, show_progress_bar=False)
        return {"data": [{"index": number, "embedding": one.tolist()} for number, one in enumerate(vectors)]}

    @app.get("/health")
    def health() -> str:
        return "ok"

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
