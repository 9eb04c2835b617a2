"""Who gets an answer, and what every answer says."""

import socket

import pytest

from laconic.serve.guard import HEADERS

PAGE = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}


def status(talk, engine, method="GET", path="/health", hosts=(), **headers):
    async def story(client, service):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await client.request(method, path, headers=named)).status_code

    return talk(engine, story, hosts=hosts)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8000", 200),
        ("192.168.1.7:8000", 200),  # an address cannot be pointed elsewhere
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("localhost:8000", 200),
        ("LocalHost.", 200),
        (f"{socket.gethostname()}:8000", 200),
        ("captions.example.org", 421),
        ("localhost.example.org", 421),
        ("127.0.0.1.example.org", 421),
        ("", 421),
        ("[", 421),
        ("a b", 421),
    ],
)
def test_names_that_the_server_goes_by(talk, engine, host, expected):
    assert status(talk, engine, host=host) == expected


def test_names_that_it_was_given(talk, engine):
    for given in ("captions.example.org", "Captions.Example.org:443"):
        assert status(talk, engine, hosts=(given,), host="captions.example.org:8000") == 200
    assert status(talk, engine, hosts=("captions.example.org",), host="example.org") == 421


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        (PAGE, False),
        ({**PAGE, "sec_fetch_site": "same-origin"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"sec_fetch_site": "same-site"}, True),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://127.0.0.1:3000", "host": "127.0.0.1:8000"}, True),  # another program of this machine
        ({"origin": "http://localhost:3000", "host": "localhost:8000"}, True),
    ],
)
def test_forms_of_other_sites(talk, engine, headers, refused):
    """The body is empty: what is not refused is told so."""
    assert status(talk, engine, "POST", "/caption", **headers) == (403 if refused else 422)


def test_a_proxy_with_a_name(talk, engine):
    headers = {"origin": "https://captions.example.org", "host": "127.0.0.1:8000", "sec_fetch_site": "same-origin"}
    assert status(talk, engine, "POST", "/caption", **headers) == 403
    assert status(talk, engine, "POST", "/caption", hosts=("captions.example.org",), **headers) == 422


def test_no_site_is_let_in_by_the_browser(talk, engine):
    """A preflight gets no header that would."""

    async def story(client, service):
        return await client.options("/caption", headers={"origin": "http://evil.example"})

    answer = talk(engine, story)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/openapi.json", "/docs", "/nowhere"])
def test_headers_of_every_answer(talk, engine, path):
    async def story(client, service):
        return await client.get(path)

    answer = talk(engine, story)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert "server" not in answer.headers
