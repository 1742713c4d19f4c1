"""What requests and answers look like; the OpenAPI document at /openapi.json is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic_core import PydanticCustomError

# A string may name a file, and clients name no files of the server's: among the values are strings of these two alone.
_CHOICES = {"long": ("refuse", "first", "windows"), "early_stopping": ("no", "yes", "never")}


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if isinstance(value, str) and value not in _CHOICES.get(name, ()):
            known = f"one of {', '.join(_CHOICES[name])}" if name in _CHOICES else "no string"
            raise PydanticCustomError(
                "choice", "{name} is {value}; wanted {known}", {"name": name, "value": repr(value), "known": known}
            )
    return options


Option = StrictBool | StrictInt | StrictFloat | list[StrictStr] | StrictStr | None
Options = Annotated[dict[str, Option], AfterValidator(_chosen)]
Texts = StrictStr | Annotated[list[StrictStr], Field(min_length=1)]
Name = Annotated[StrictStr | None, Field(default=None, description="one of /v1/models; none: the first that can do it")]


class Request(BaseModel):
    """A body; a field that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """An answer; tasks have fields of their own."""

    model_config = ConfigDict(extra="allow")


class ErrorText(BaseModel):
    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    code: int
    param: str | None = None


class ErrorBody(BaseModel):
    """Every error."""

    error: ErrorText


class Kept(BaseModel):
    """How many tokens of the text were read once (kept), again in a further window (strided), or never (dropped)."""

    kept: int
    strided: int = 0
    dropped: int = 0


# ---------------------------------------------------------------------------------------------------- predict


class PredictRequest(Request):
    """Texts, pairs or records of the model's task; one of them, or a list."""

    model: Name = None
    inputs: StrictStr | dict[str, Any] | list[StrictStr | dict[str, Any] | tuple[StrictStr, StrictStr]] = Field(
        examples=[["Ada Lovelace lived in London."]],
        description="a text, a record such as {'question': …, 'context': …}, or a list of texts, pairs and records",
    )
    options: Options = Field(default={}, description="what the task can be told, such as {'dictionary': […]}")


class Prediction(Answer):
    """As `bothways predict` prints it; instead of it `error`, for a text that can't be read while others can."""

    tokens: Kept | None = None
    error: str | None = None


class PredictAnswer(BaseModel):
    """One prediction for each input, in order."""

    model: str
    task: str
    predictions: list[Prediction]


# --------------------------------------------------------------------------------------------------- analysis


class AnalyzeRequest(Request):
    """One text or several."""

    model: Name = None
    input: Texts = Field(examples=["小明在北京工作。"])
    options: Options = Field(
        default={}, description="{'dictionary': […]}: words to keep whole; 'bonus': only add so much; 'vector': true"
    )


class Analysis(Answer):
    """As `bothways analyze --json` prints it; instead of it `error`, for a text that can't be read."""

    tokens: Kept | None = None
    error: str | None = None


class AnalyzeAnswer(BaseModel):
    """One analysis for each text, in order."""

    model: str
    texts: list[Analysis]


# ------------------------------------------------------------------------------------------------- embeddings


class EmbeddingsRequest(Request):
    """As OpenAI's clients send it."""

    model: Name = None
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: StrictInt | None = Field(default=None, ge=1, description="only the model's own width is taken")
    user: StrictStr | None = Field(default=None, description="ignored")


class Embedding(BaseModel):
    """One vector: numbers, or base64 of little-endian 32-bit floats."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    tokens: Kept


class Usage(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """As OpenAI's clients read it."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


# ----------------------------------------------------------------------------------------------------- rerank


class Document(Request):
    """A document as an object."""

    text: StrictStr


class RerankRequest(Request):
    """Documents to be ordered by how well they fit the query."""

    model: Name = None
    query: StrictStr
    documents: list[StrictStr | Document] = Field(min_length=1)
    top_n: StrictInt | None = Field(default=None, ge=1, description="how many are told; none: all")
    return_documents: StrictBool = False


class Ranked(BaseModel):
    """A document's place in the request, and its score; higher is better."""

    index: int
    relevance_score: float
    document: Document | None = None
    tokens: Kept


class RerankAnswer(BaseModel):
    """The best first. `by`: a model of pairs scored each with the query, or vectors were compared by their cosine."""

    model: str
    by: Literal["pair", "similarity", "cosine"]
    results: list[Ranked]
    usage: Usage


# --------------------------------------------------------------------------------------------------- generate


class GenerateRequest(Request):
    """A source text to write from."""

    model: Name = None
    input: StrictStr
    stream: StrictBool = Field(default=True, description="server-sent events, a piece of text each; else one object")
    options: Options = Field(default={}, description="of generate: {'beams': 4} (not while streaming), …")


class GenerateAnswer(Answer):
    """The text as one object."""

    model: str
    text: str


# --------------------------------------------------------------------------------------------------- tokenize


class TokenizeRequest(Request):
    """Texts to be cut into pieces."""

    model: Name = None
    input: Texts


class Piece(BaseModel):
    """A piece, and where it stands in the text, in characters."""

    id: int
    token: str
    start: int
    end: int


class Pieces(BaseModel):
    """A text's pieces, without [CLS] and [SEP]."""

    tokens: list[Piece]
    count: int


class TokenizeAnswer(BaseModel):
    """`max_length`: how many tokens the model reads at once, [CLS] and [SEP] among them."""

    model: str
    max_length: int
    texts: list[Pieces]


# -------------------------------------------------------------------------------------------------- attention


class AttentionRequest(Request):
    """One text or two, whose attention is to be shown."""

    model: Name = None
    text: StrictStr = Field(min_length=1)
    text_b: StrictStr | None = Field(default=None, min_length=1)


class Weights(BaseModel):
    """`weights`: base64 of zlib of (layers, heads, t, t) bytes; a weight is (byte / 255)². Rows sum to about 1."""

    tokens: list[str]
    layers: int
    heads: int
    weights: str


class CrossWeights(Weights):
    """The same from each token written (`tokens`) to those of the source (`keys`)."""

    keys: list[str]


class AttentionAnswer(Weights):
    """The encoder's attention; of a model that writes, also the decoder's to the source."""

    model: str
    segments: list[int]
    dropped: int = Field(description="tokens at the end that were not read")
    cross: CrossWeights | None = None


# --------------------------------------------------------------------------------------------------- models


class ModelCard(BaseModel):
    """A loaded model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    task: str | None
    labels: list[str]
    fills: str | None = Field(description='of several tasks, the name of the one that fills masks: {"task": it, …}')
    routes: list[str]
    max_length: int


class Models(BaseModel):
    """All loaded models, the default first."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    """Whether requests are taken."""

    status: Literal["ok", "starting", "stopping", "out of order"]
