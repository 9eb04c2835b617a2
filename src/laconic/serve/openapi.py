"""What the API is, as an OpenAPI document."""

from importlib.metadata import version
from typing import Any

from laconic.serve.service import Service

Json = dict[str, Any]

VERSION = version("laconic")

_TEXT: Json = {"type": "string"}
_IMAGE: Json = {"type": "string", "format": "binary"}
_CAPTION: Json = {
    "type": "object",
    "required": ["caption", "log_probability"],
    "properties": {
        "caption": {"type": "string", "description": "Words, in lower case, separated by spaces."},
        "log_probability": {
            "type": "number",
            "maximum": 0,
            "description": "Natural logarithm of the probability that the captioner gives the whole caption.",
        },
    },
}
_OF_AN_IMAGE: Json = {
    "name": {"type": "string", "description": "Of the file, as the form says it; empty where the image is the body."},
    "bytes": {"type": "integer", "minimum": 0, "description": "Of the image."},
}
_SCHEMAS: Json = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string", "description": "What is wrong, and what to do."}},
    },
    "Caption": _CAPTION,
    "Captioned": {
        "type": "object",
        "description": "An image, its best caption, and what else the search has found.",
        "required": ["name", "bytes", "milliseconds", "caption", "log_probability", "alternatives"],
        "properties": {
            **_OF_AN_IMAGE,
            "milliseconds": {"type": "number", "description": "From its arrival to its caption, waiting included."},
            **_CAPTION["properties"],
            "alternatives": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/Caption"},
                "description": "The other captions of the beam, best first.",
            },
        },
    },
    "Refused": {
        "type": "object",
        "description": "An image that could not be read. The others of the request are captioned all the same.",
        "required": ["name", "bytes", "error"],
        "properties": {**_OF_AN_IMAGE, "error": {"type": "string", "description": "What is wrong, and what to do."}},
    },
    "Answer": {
        "type": "object",
        "required": ["milliseconds", "images"],
        "properties": {
            "milliseconds": {"type": "number", "description": "From the arrival of the whole body to the answer."},
            "images": {
                "type": "array",
                "description": "One for each image, in the order in which they were sent.",
                "items": {
                    "oneOf": [{"$ref": "#/components/schemas/Captioned"}, {"$ref": "#/components/schemas/Refused"}]
                },
            },
        },
    },
    "Info": {
        "type": "object",
        "required": ["captioner", "engine", "version", "beam", "max_length", "limits"],
        "properties": {
            "captioner": {"type": "string", "description": "Name of its file."},
            "engine": {"type": "string", "description": "What runs it."},
            "version": {"type": "string", "description": "Of laconic."},
            "beam": {"type": "integer", "description": "Captions that the search keeps at a time by default."},
            "max_length": {"type": "integer", "description": "Words of a caption at most by default."},
            "limits": {
                "type": "object",
                "description": "What a request may have at most.",
                "required": ["beam", "max_length", "images", "bytes", "pixels"],
                "properties": {
                    "beam": {"type": "integer"},
                    "max_length": {"type": "integer"},
                    "images": {"type": "integer"},
                    "bytes": {"type": "integer", "description": "Of the body."},
                    "pixels": {"type": "integer", "description": "Of one image."},
                },
            },
        },
    },
    "Health": {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"type": "string", "enum": ["ready", "stopping"]}},
    },
}
_REFUSALS = {
    "400": "The form is damaged or has no file, or a parameter is wrong.",
    "403": "It was sent by a page of another site.",
    "408": "The body arrived too slowly.",
    "413": "The body has too many bytes, or too many images.",
    "415": "The body is of a type that is not read.",
    "421": "The Host header says a name that the server does not go by.",
    "500": "The server failed, which its own log explains.",
    "503": "The server has its hands full, or is stopping; the header Retry-After says when to try again.",
    "504": "Captioning took too long.",
}


def document(service: Service) -> Json:
    """The OpenAPI document of a server, version 3.1, with the limits of this one."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "laconic",
            "version": VERSION,
            "description": "Captions photos. Nothing of an upload is kept. Answers are JSON, errors too: "
            '{"error": what is wrong and what to do}.',
        },
        "paths": {
            "/caption": {"post": _caption(service)},
            "/info": {"get": _get("What captions, and what a request may have at most.", "Info")},
            "/health": {
                "get": {
                    **_get("Whether the server accepts requests.", "Health"),
                    "responses": {"200": _json("It does.", "Health"), "503": _json("It is stopping.", "Health")},
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Counts and times, in Prometheus' text format.",
                    "responses": {"200": {"description": "Always.", "content": {"text/plain": {"schema": _TEXT}}}},
                }
            },
            "/openapi.json": {
                "get": {
                    "summary": "This document.",
                    "responses": {
                        "200": {
                            "description": "Always.",
                            "content": {"application/json": {"schema": {"type": "object"}}},
                        }
                    },
                }
            },
        },
        "components": {"schemas": _SCHEMAS},
    }


def _caption(service: Service) -> Json:
    granted = service.settings
    usual = granted.decoding
    several = {"type": "array", "items": _IMAGE, "maxItems": granted.max_images}
    return {
        "summary": "Captions one image or several.",
        "description": "Send one image as the whole body, or up to "
        f"{granted.max_images} as the files of a form, whose fields may have any name: {granted.body_bytes:,} bytes in "
        f"all, and {granted.pixels:,} pixels each. One that cannot be read has an error in the place of its caption.",
        "parameters": [
            _parameter("beam", "Captions that the search keeps at a time.", usual.beam, granted.most_beam),
            _parameter("max_length", "Words of a caption at most.", usual.max_length, granted.most_length),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": {"schema": _IMAGE},
                "application/octet-stream": {"schema": _IMAGE},
                "multipart/form-data": {"schema": {"type": "object", "properties": {"image": several}}},
            },
        },
        "responses": {
            "200": _json("Captions; of a form, or an error in the place of a caption.", "Answer"),
            "422": _json("The image, which is the whole body, cannot be read.", "Answer"),
            **{status: _json(text, "Error") for status, text in _REFUSALS.items()},
        },
    }


def _get(summary: str, schema: str) -> Json:
    return {"summary": summary, "responses": {"200": _json("Always.", schema)}}


def _json(description: str, schema: str) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _parameter(name: str, description: str, usual: int, most: int) -> Json:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": usual}
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
