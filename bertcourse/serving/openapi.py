"""The OpenAPI description of a service: made from the model it serves and from the limits it enforces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertcourse import __version__
from bertcourse.models.exported import FIELDS, ExportedModel
from bertcourse.serving.inputs import CODES
from bertcourse.serving.settings import Settings
from bertcourse.tasks import bio_tags

TEXT = {"type": "string"}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
PLACE = {"type": "integer", "minimum": 0, "description": "characters (Unicode code points) from the beginning of the text"}
TRUNCATED = {"type": "boolean", "description": "a part of the text was cut off before the model saw it"}
EXAMPLES = {  # of each language and kind of model: a request
    "en": {
        "classification": {"text": "The music was not very good."},
        "pairs": {"text": "A man is playing the guitar.", "text_pair": "Somebody makes music."},
        "ner": {"text": "Mary went to Paris."},
        "qa": {"question": "Where did Mary go?", "context": "Mary went to Paris. Tom stayed at home."},
    },
    "zh": {
        "classification": {"text": "音乐不太好。"},
        "pairs": {"text": "一个男人在弹吉他。", "text_pair": "有人在演奏音乐。"},
        "ner": {"text": "小红五月去了北京。"},
        "qa": {"question": "小红去了哪里？", "context": "小红去了北京。小明留在家里。"},
    },
}
LIMITS = ("texts", "characters", "bytes", "windows", "pieces", "seconds")  # that /model names
PREDICT = (400, 401, 408, 413, 415, 422, 429, 500, 503)  # statuses of POST /predict


def an_object(properties: Mapping[str, Any], required: Any = None) -> dict[str, Any]:
    """A schema of an object with nothing else in it."""
    return {"type": "object", "properties": dict(properties), "required": list(properties if required is None else required),
            "additionalProperties": False}


def prediction_of(predictor: ExportedModel, token: bool = False) -> dict[str, Any]:
    """The schema of one prediction. With a token the labels are for those who know it, as on /model."""
    kind, labels = predictor.kind, () if token else predictor.about.labels
    if kind == "regression":
        return an_object({"score": {"type": "number"}, "truncated": TRUNCATED})
    if kind == "ner":
        labels = sorted({tag[2:] for tag in (bio_tags(labels) or {}).values() if tag != "O"})
        span = an_object({"label": {"type": "string", **({"enum": labels} if labels else {})}, "text": {"type": "string"},
                          "start": PLACE, "end": PLACE, "probability": PROBABILITY})
        tags = {"type": "array", "items": TEXT, "description": "a tag for each word"}
        return an_object({"words": {"type": "array", "items": TEXT}, "tags": tags, "spans": {"type": "array", "items": span}, "truncated": TRUNCATED})
    if kind == "qa":
        place = {**PLACE, "type": ["integer", "null"]}
        return an_object({"answer": {"type": "string", "description": "a part of the context, or nothing if it holds no answer"},
                          "start": place, "end": place, "probability": PROBABILITY, "truncated": TRUNCATED})
    scores = an_object(dict.fromkeys(labels, PROBABILITY)) if labels else {"type": "object", "additionalProperties": PROBABILITY}
    label = {"type": "string", **({"enum": list(labels)} if labels else {})}
    return an_object({"label": label, "probability": PROBABILITY, "scores": scores, "truncated": TRUNCATED})


def without_labels(prediction: Mapping[str, Any]) -> dict[str, Any]:
    """An example that shows the form of a prediction and not the model's labels."""
    made = dict(prediction)
    if "label" in made:
        made["label"] = "label"
    if "scores" in made:
        made["scores"] = {f"label {i}": p for i, p in enumerate(made["scores"].values(), 1)}
    if "tags" in made:
        made["tags"] = ["label"] * len(made["tags"])
    if "spans" in made:
        made["spans"] = [span | {"label": "label"} for span in made["spans"]]
    return made


def request_of(predictor: ExportedModel, settings: Settings) -> dict[str, Any]:
    """The schema of a request: strings, or lists of them."""
    # `pattern`, because white space alone is refused; \S is what JSON Schema and Python agree on for these characters.
    text = {"type": "string", "minLength": 1, "pattern": r"\S"}
    many = {"type": "array", "items": text, "minItems": 1, "maxItems": settings.max_texts}
    fields = [name for name in FIELDS if name in (*predictor.required, *predictor.optional)]
    one, several = (an_object(dict.fromkeys(fields, kind), predictor.required) for kind in (text, many))
    return {"oneOf": [one, several], "description": f"One text, or up to {settings.max_texts} in a list; lists have the same length. "
            f"Of a text longer than {settings.max_chars:,} characters the rest is cut off. All of them may make {settings.max_windows:,} windows "
            f"of the model and {settings.max_pieces:,} tokens."}


def example_of(predictor: ExportedModel) -> dict[str, str]:
    """A request that this model answers, in its language."""
    kind = predictor.kind if predictor.kind in ("ner", "qa") else "pairs" if "text_pair" in predictor.required else "classification"
    return EXAMPLES["zh" if predictor.about.lang == "zh" else "en"][kind]


def answer(description: str, schema: str) -> dict[str, Any]:
    """A response."""
    return {"description": description, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def refusals(statuses: Any) -> dict[str, Any]:
    """The responses of a status: which codes it may carry."""
    made = {}
    for status in statuses:
        codes = "; ".join(f"`{code}`: {when}" for code, (number, when) in CODES.items() if number == status)
        made[str(status)] = answer(codes, "Problem")
    if "429" in made:
        made["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "seconds"}}
    if "401" in made:
        made["401"]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return made


def schemas_of(predictor: ExportedModel, settings: Settings, token: bool) -> dict[str, Any]:
    """What requests and answers look like."""
    texts = {"type": "array", "items": TEXT}
    return {
        "Request": request_of(predictor, settings),
        "Prediction": prediction_of(predictor, token),
        "Predictions": an_object({"predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}, "minItems": 1}}),
        "Problem": an_object({"error": an_object({"code": {"type": "string", "enum": list(CODES)}, "message": TEXT, "field": TEXT}, ["code", "message"])}),
        "Status": an_object({"status": TEXT}),
        "Model": an_object({"name": TEXT, "task": TEXT, "labels": texts, "language": TEXT, "max_length": {"type": "integer"},
                            "fingerprint": TEXT, "quantisation": {"type": ["string", "null"]}, "runtime": TEXT, "provider": TEXT,
                            "fields": an_object({"required": texts, "optional": texts}),
                            "limits": an_object(dict.fromkeys(LIMITS, {"type": "number"}))}),
    }


def describe_predict(predictor: ExportedModel, token: bool) -> dict[str, Any]:
    """`POST /predict`, with an example that the model has answered."""
    example = example_of(predictor)
    response = answer("A prediction for each text, in their order", "Predictions")
    shown = [without_labels(one) if token else one for one in predictor.answer([example])]
    response["content"]["application/json"]["example"] = {"predictions": [one | {"truncated": False} for one in shown]}
    return {
        "summary": "What the model says of one text or several", "operationId": "predict", "security": [{"token": []}] if token else [],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Request"},
                                                                          "example": example}}},
        "responses": {"200": response, **refusals(status for status in PREDICT if status != 401 or token),
                      "431": answer("`bad_request`: the request line and the headers have more than 64 KiB", "Problem")},
    }


def describe_get(name: str, summary: str, responses: dict[str, Any], token: bool = False) -> dict[str, Any]:
    """A path that is read; `token`: only by callers that know the token."""
    return {"get": {"summary": summary, "operationId": name, "security": [{"token": []}] if token else [],
                    "responses": responses | (refusals((401,)) if token else {})}}


def describe(predictor: ExportedModel, settings: Settings, token: bool) -> dict[str, Any]:
    """The whole document."""
    counters = {"description": "The counters", "content": {"text/plain": {"schema": TEXT}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": settings.name, "version": __version__, "description": f"{predictor.about.task}, served by bertcourse"},
        "paths": {
            "/predict": {"post": describe_predict(predictor, token)},
            "/health": describe_get("health", "Is the process alive?", {"200": answer("It is", "Status"), **refusals((503,))}),
            "/ready": describe_get("ready", "Can requests be sent here?", {"200": answer("They can", "Status"), **refusals((503,))}),
            "/model": describe_get("model", "What is served", {"200": answer("The model", "Model")}, token),
            "/metrics": describe_get("metrics", "Counters for Prometheus", {"200": counters}, token),
        },
        "components": {"schemas": schemas_of(predictor, settings, token),
                       **({"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if token else {})},
    }
