"""The document is true: of the routes, and of the answers that they give."""

from html.parser import HTMLParser

import pytest

from laconic.serve.app import API, PAGE, make_app
from laconic.serve.openapi import document
from laconic.serve.service import Service
from laconic.serve.settings import Settings

KINDS = {"string": str, "integer": int, "number": (int, float), "object": dict, "array": list}


def flaws(value, schema, whole, at="answer"):
    """What of a value is not as its schema says; what the schema does not name is a flaw, too."""
    if "$ref" in schema:
        return flaws(value, whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]], whole, at)
    if "oneOf" in schema:
        fits = [one for one in schema["oneOf"] if not flaws(value, one, whole, at)]
        return [] if len(fits) == 1 else [f"{at} is {len(fits)} of the kinds"]
    if not isinstance(value, KINDS[schema["type"]]) or isinstance(value, bool):
        return [f"{at} is {value!r}"]
    found = []
    if isinstance(value, dict) and "properties" in schema:
        found += [f"{at} lacks {name}" for name in schema.get("required", ()) if name not in value]
        found += [f"{at} has {name}" for name in value if name not in schema["properties"]]
        for name, kind in schema["properties"].items():
            found += flaws(value[name], kind, whole, f"{at}.{name}") if name in value else []
    for index, item in enumerate(value if isinstance(value, list) else ()):
        found += flaws(item, schema["items"], whole, f"{at}[{index}]")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at} is {value!r}")
    if isinstance(value, (int, float)) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{at} is {value}")
    return found


@pytest.fixture(scope="module")
def whole(engine):
    service = Service(engine, "tiny", Settings(max_images=5, pixels=1_000_000))
    service.close()
    return document(service)


def test_it_names_every_route_and_no_other(whole, engine):
    service = Service(engine, "tiny", Settings())
    service.close()
    routes = {
        (route.path, method.lower()) for route in make_app(service)._app.routes for method in route.methods - {"HEAD"}
    }
    documented = {(path, method) for path, methods in whole["paths"].items() for method in methods}
    assert routes - documented == {(path, "get") for path in [*PAGE, "/docs"]}
    assert documented <= routes
    assert {path for path, _ in documented} == {"/caption", *API} - {"/docs"}


def test_answers_are_as_it_says(whole, talk, engine, photo):
    files = [("image", ("a.jpg", photo(1))), ("image", ("b.txt", b"no image"))]
    requests = [
        ("post", "/caption", {"files": files}, 200),
        ("post", "/caption", {"content": photo(2)}, 200),
        ("post", "/caption", {"content": b"no image"}, 422),
        ("post", "/caption", {"content": b"x", "headers": {"content-type": "text/html"}}, 415),
        ("post", "/caption", {"content": b"x", "params": {"beam": 0}}, 400),
        ("post", "/caption", {"content": b"x", "headers": {"origin": "null"}}, 403),
        ("post", "/caption", {"content": b"x", "headers": {"host": "example.org"}}, 421),
        ("post", "/caption", {"files": files * 9}, 413),
        ("get", "/info", {}, 200),
        ("get", "/health", {}, 200),
        ("get", "/openapi.json", {}, 200),
    ]

    async def story(client, service):
        answers = [await client.request(method, path, **given) for method, path, given, _ in requests]
        service.stopping = True
        requests.extend([("get", "/health", {}, 503), ("post", "/caption", {}, 503)])
        return [*answers, await client.get("/health"), await client.post("/caption", content=b"x")]

    for (method, path, _, status), answer in zip(requests, talk(engine, story), strict=True):
        assert answer.status_code == status, path
        content = whole["paths"][path][method]["responses"][str(status)]["content"]
        assert answer.headers["content-type"] in content
        assert not flaws(answer.json(), content["application/json"]["schema"], whole)


def test_the_check_finds_flaws(whole):
    captioned = {"$ref": "#/components/schemas/Captioned"}
    sound = {"name": "a", "bytes": 1, "milliseconds": 1.5, "caption": "a", "log_probability": -1, "alternatives": []}
    assert not flaws(sound, captioned, whole)
    for change in ({"bytes": -1}, {"log_probability": 0.5}, {"name": None}, {"more": 1}, {"alternatives": [{}]}):
        assert flaws({**sound, **change}, captioned, whole)


def test_limits_are_those_of_the_server(whole):
    operation = whole["paths"]["/caption"]["post"]
    beam, length = operation["parameters"]
    assert (beam["schema"]["default"], beam["schema"]["maximum"]) == (3, 10)
    assert (length["schema"]["default"], length["schema"]["maximum"]) == (20, 50)
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["image"]["maxItems"] == 5
    assert "1,000,000 pixels" in operation["description"]


def test_the_page_for_people_has_all_of_it_and_nothing_from_elsewhere(whole, talk, engine):
    async def story(client, service):
        return await client.get("/docs")

    answer = talk(engine, story)
    assert answer.headers["content-type"].startswith("text/html")
    for text in (*whole["paths"], *whole["components"]["schemas"], "http://127.0.0.1/caption?beam=5"):
        assert text in answer.text

    links, opened = [], []

    class Page(HTMLParser):
        def handle_starttag(self, tag, attributes):
            links.extend(value for name, value in attributes if name in ("href", "src"))
            if tag not in ("meta", "link"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Page().feed(answer.text)
    assert not opened
    assert sorted(set(links)) == ["./", "icon.svg", "openapi.json", "page.css"]
