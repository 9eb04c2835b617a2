"""The API for people: a page made from the OpenAPI document, without a script."""

from html import escape
from typing import Any

Json = dict[str, Any]

EXAMPLES = """curl --data-binary @photo.jpg {address}caption
curl -F image=@one.jpg -F image=@two.jpg '{address}caption?beam=5'"""


def page(document: Json, address: str) -> str:
    """The whole page, as HTML; `address` is that of the server, with a slash at its end."""
    about = document["info"]
    operations = "".join(
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>laconic: the API</title>
<link rel="icon" href="icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page.css">
</head>
<body>
<main class="docs">
<h1>The API</h1>
<p>{escape(about["description"])} The same for programs: <a href="openapi.json">openapi.json</a>. <a href="./">Back to
the page</a>.</p>
<pre><code>{escape(EXAMPLES.format(address=address))}</code></pre>
{operations}
<h2>What answers hold</h2>
{schemas}
</main>
</body>
</html>
"""


def _operation(path: str, method: str, operation: Json) -> str:
    responses = [
        (status, _shown(response.get("content", {})), response["description"])
        for status, response in operation["responses"].items()
    ]
    return (
        f'<section class="card"><h2><code>{escape(method.upper())} {escape(path)}</code></h2>'
        f"<p>{escape(operation['summary'])} {escape(operation.get('description', ''))}</p>"
        + _table(("parameter", "type", "what it is"), [_parameter(one) for one in operation.get("parameters", ())])
        + _table(("body", "type"), [(kind, _type(body["schema"])) for kind, body in _bodies(operation)])
        + _table(("status", "answer", "when"), responses)
        + "</section>"
    )


def _bodies(operation: Json) -> list[tuple[str, Json]]:
    return list(operation.get("requestBody", {}).get("content", {}).items())


def _parameter(parameter: Json) -> tuple[str, str, str]:
    schema = parameter["schema"]
    kind = f"{schema['type']}, {schema['minimum']} to {schema['maximum']}"
    return parameter["name"], kind, f"{parameter['description']} {schema['default']} by default."


def _schema(name: str, schema: Json) -> str:
    rows = [(key, _type(value), value.get("description", "")) for key, value in schema["properties"].items()]
    about = escape(schema.get("description", ""))
    return (
        f'<section class="card"><h3>{escape(name)}</h3><p>{about}</p>'
        + _table(("field", "type", "what it is"), rows)
        + "</section>"
    )


def _shown(content: Json) -> str:
    return ", ".join(_type(body["schema"]) for body in content.values())


def _type(schema: Json) -> str:
    """A schema in few words, such as "list of Captioned or Refused"."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "oneOf" in schema:
        return " or ".join(map(_type, schema["oneOf"]))
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if "properties" in schema:
        return "{" + ", ".join(f"{name}: {_type(value)}" for name, value in schema["properties"].items()) + "}"
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    return "image file" if schema.get("format") == "binary" else str(schema["type"])


def _table(heads: tuple[str, ...], rows: list[Any]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
