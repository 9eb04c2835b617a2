"""The API: what is asked and what is answered, limits included, without a network."""

import asyncio
import io
from typing import Any

import httpx
import pytest

from laconic.captioner.engine import Engine
from laconic.decode.search import Decoding
from laconic.errors import ConfigError
from laconic.serve.app import PAGE
from laconic.serve.service import Service
from laconic.serve.settings import Settings


def form(*files: tuple[str, bytes]) -> dict[str, Any]:
    return {"files": [("image", (name, data)) for name, data in files]}


def asked(talk, engine, path="/caption", method="POST", *, limits=None, **request) -> httpx.Response:
    async def story(client, service):
        answer = await client.request(method, path, **request)
        assert service.uploads.held == service.accepted == service.working == 0
        return answer

    return talk(engine, story, **(limits or {}))


def wrong(answer: httpx.Response) -> str:
    found = answer.json()
    assert list(found) == ["error"]
    return found["error"]


def test_captions_are_those_of_the_engine(talk, engine, photo, tmp_path):
    paths = [tmp_path / "a.jpg", tmp_path / "b.png"]
    paths[0].write_bytes(photo(1, size=(300, 200)))  # a JPEG that is decoded at a smaller size
    paths[1].write_bytes(photo(2, "PNG"))
    decoding = Decoding(beam=4, max_length=7)
    expected = engine.caption(paths, decoding)
    assert expected[0] != expected[1]
    files = form(*((path.name, path.read_bytes()) for path in paths))
    answer = asked(talk, engine, "/caption?beam=4&max_length=7", **files)
    assert answer.status_code == 200
    images = answer.json()["images"]
    assert [image["caption"] for image in images] == expected
    assert [image["name"] for image in images] == ["a.jpg", "b.png"]
    assert [image["bytes"] for image in images] == [path.stat().st_size for path in paths]
    found = engine.search(engine.batch(paths), decoding)
    for image, hypotheses in zip(images, found, strict=True):
        said = [image, *image["alternatives"]]
        assert [one["caption"] for one in said] == [engine.vocabulary.decode(one.tokens) for one in hypotheses]
        assert [one["log_probability"] for one in said] == pytest.approx([one.score for one in hypotheses], abs=1e-3)
        assert 0 < image["milliseconds"] <= answer.json()["milliseconds"]


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", None])
def test_one_image_as_the_body(talk, engine, photo, kind):
    data = photo(3)
    answer = asked(talk, engine, content=data, headers={"content-type": kind} if kind else {})
    (image,) = answer.json()["images"]
    assert (answer.status_code, image["name"], image["bytes"]) == (200, "", len(data))
    assert len(image["alternatives"]) == 2


def test_an_image_that_is_none_has_its_error_and_the_others_their_captions(talk, engine, photo):
    bad = {"cut.jpg": photo(1)[:-300], "text.txt": b"no image", "empty.jpg": b""}
    answer = asked(talk, engine, **form(("good.jpg", photo(1)), *bad.items()))
    assert answer.status_code == 200
    good, *others = answer.json()["images"]
    assert good["caption"]
    assert [list(image) for image in others] == [["name", "bytes", "error"]] * 3
    assert [image["name"] for image in others] == list(bad)
    assert "truncated or damaged" in others[0]["error"]
    assert others[1]["error"].startswith("not a JPEG, PNG")
    assert "empty" in others[2]["error"]
    alone = asked(talk, engine, content=b"no image")
    assert alone.status_code == 422
    assert alone.json()["images"][0]["error"] == others[1]["error"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("beam=0", "beam is '0'"),
        ("beam=11", "from 1 to 10"),
        ("beam=x", "beam is 'x'"),
        ("beam=٣", "beam is"),
        ("max_length=51", "from 1 to 50"),
        ("beam=2&beam=3", "twice"),
        ("bean=3", "'bean' is no parameter; there are beam and max_length"),
        ("%1b=3", r"'\x1b' is no parameter".replace("\\", "\\\\")),
    ],
)
def test_parameters_that_cannot_be(talk, engine, photo, query, says):
    answer = asked(talk, engine, f"/caption?{query}", content=photo(1))
    assert answer.status_code == 400
    assert says in wrong(answer)


def test_the_servers_own_settings_may_be_higher(talk, engine, photo):
    limits = {"decoding": Decoding(beam=12, max_length=3)}
    answer = asked(talk, engine, limits=limits, content=photo(1)).json()["images"][0]
    assert len(answer["alternatives"]) == 11
    assert len(answer["caption"].split()) <= 3
    assert asked(talk, engine, "/caption?beam=12", limits=limits, content=photo(1)).status_code == 200
    assert asked(talk, engine, "/caption?beam=13", limits=limits, content=photo(1)).status_code == 400


def test_too_many_bytes(talk, engine, photo):
    limits = {"body_bytes": 5000}
    assert asked(talk, engine, limits=limits, content=photo(1)).status_code == 200
    answer = asked(talk, engine, limits=limits, content=bytes(5001))
    assert answer.status_code == 413
    assert "more than 5,000 bytes" in wrong(answer)


def test_too_many_bytes_of_unknown_number_are_noticed_as_they_come(talk, engine):
    taken = []

    async def endless():
        while len(taken) < 200:
            taken.append(1)
            yield bytes(1000)

    async def story(client, service):
        answer = await client.post("/caption", content=endless())
        assert service.uploads.held == 0
        return answer

    assert talk(engine, story, body_bytes=5000).status_code == 413
    assert len(taken) == 200  # the rest was thrown away, so that the client gets to read the answer


def test_too_many_images(talk, engine, photo):
    files = form(*[(f"{i}.jpg", photo(i)) for i in range(4)])
    assert asked(talk, engine, limits={"max_images": 4}, **files).status_code == 200
    answer = asked(talk, engine, limits={"max_images": 3}, **files)
    assert answer.status_code == 413
    assert wrong(answer) == "more than 3 images; send fewer at once"


def test_too_many_pixels(talk, engine, photo):
    files = form(("large.jpg", photo(1, size=(101, 100))), ("right.jpg", photo(1, size=(100, 100))))
    large, right = asked(talk, engine, limits={"pixels": 10_000}, **files).json()["images"]
    assert large["error"] == "101 x 100 pixels; this server reads at most 10,000; make it smaller"
    assert "caption" in right


def test_too_much_memory(talk, engine, photo):
    png = photo(1, "PNG", (1000, 1000))  # 7 bytes a pixel
    answer = asked(talk, engine, limits={"decoding_bytes": 6_900_000}, content=png)
    assert answer.status_code == 422
    assert "takes 7,000,000 bytes of memory to decode" in answer.json()["images"][0]["error"]
    assert asked(talk, engine, limits={"decoding_bytes": 7_000_000}, content=png).status_code == 200


def test_a_slow_body(talk, engine, photo):
    async def stalls():
        yield photo(1)[:100]
        await asyncio.sleep(20)

    async def drips():
        for byte in photo(1):
            yield bytes([byte])
            await asyncio.sleep(0.02)

    for slow, limits in ((stalls, {"stall_timeout": 0.1}), (drips, {"upload_timeout": 0.2})):
        answer = asked(talk, engine, limits=limits, content=slow())
        assert answer.status_code == 408
        assert "too slowly" in wrong(answer)


def test_a_full_queue(talk, held, photo):
    async def story(client, service):
        first = asyncio.create_task(client.post("/caption", **form(("a.jpg", photo(1)), ("b.jpg", photo(2)))))
        while not held.calls:
            await asyncio.sleep(0.01)
        full = await client.post("/caption", content=photo(3))
        held.gate.set()
        assert (await first).status_code == 200
        return full, await client.post("/caption", content=photo(3))

    full, later = talk(held, story, queue=2, max_images=2, threads=1)
    assert full.status_code == 503
    assert int(full.headers["retry-after"]) >= 1
    assert "try again" in wrong(full)
    assert later.status_code == 200


def test_captioning_takes_too_long(talk, held, photo):
    async def story(client, service):
        answer = await client.post("/caption", **form(*[(f"{i}.jpg", photo(i)) for i in range(3)]))
        assert service.accepted == service.uploads.held == 0
        held.gate.set()
        return answer, await client.post("/caption", content=photo(1))

    late, next_one = talk(held, story, timeout=0.3, threads=1)
    assert late.status_code == 504
    assert "longer than 0.3 s" in wrong(late)
    assert next_one.status_code == 200
    assert sum(held.calls) == 2  # one that was under way, and the next request's: what was given up is not captioned


def test_who_leaves_is_not_captioned(talk, held, photo):
    async def story(client, service):
        busy = asyncio.create_task(client.post("/caption", content=photo(1)))
        while not held.calls:
            await asyncio.sleep(0.01)
        left = asyncio.create_task(client.post("/caption", content=photo(2)))
        while service.accepted < 2:
            await asyncio.sleep(0.01)
        left.cancel()
        await asyncio.wait([left])
        held.gate.set()
        await busy
        assert service.accepted == service.uploads.held == service.working == 0

    talk(held, story, threads=1)
    assert sum(held.calls) <= 2


def test_a_server_that_is_stopping(talk, held, photo):
    async def story(client, service):
        assert (await client.get("/health")).json() == {"status": "ready"}
        accepted = asyncio.create_task(client.post("/caption", content=photo(1)))
        while not held.calls:
            await asyncio.sleep(0.01)
        service.stopping = True
        health, late = await client.get("/health"), await client.post("/caption", content=photo(2))
        held.gate.set()
        return health, late, await accepted

    health, late, accepted = talk(held, story, threads=1)
    assert (health.status_code, health.json()) == (503, {"status": "stopping"})
    assert late.status_code == 503
    assert "stopping" in wrong(late)
    assert late.headers["retry-after"]
    assert late.headers["connection"] == "close"
    assert accepted.json()["images"][0]["caption"]


def test_a_captioner_that_fails_is_a_failure_of_the_server(talk, held, photo, monkeypatch):
    def fails(*given):
        raise ZeroDivisionError

    monkeypatch.setattr(type(held), "search", fails)

    async def story(client, service):
        with pytest.raises(ZeroDivisionError):  # the server logs it, and answers with 500
            await client.post("/caption", content=photo(1))
        assert service.accepted == service.working == service.uploads.held == 0

    talk(held, story)


def test_files_of_the_page(talk, engine):
    for path, (_, kind) in PAGE.items():
        answer = asked(talk, engine, path, "GET")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/page.py",
        "/app.py",
        "/page/",
        "/../app.py",
        "/..%2fapp.py",
        "/%2e%2e/app.py",
        "//etc/passwd",
        "/docs/",
        "/x%00",
    ],
)
def test_no_other_file_is_reachable(talk, engine, path):
    answer = asked(talk, engine, path, "GET")
    assert answer.status_code == 404
    assert "/docs" in wrong(answer)


def test_wrong_methods(talk, engine):
    answer = asked(talk, engine, "/caption", "GET")
    assert answer.status_code == 405
    assert "wrong method" in wrong(answer)
    assert asked(talk, engine, "/", "POST").status_code == 405


def test_counts(talk, engine, photo):
    async def story(client, service):
        await client.post("/caption", **form(("a.jpg", photo(1)), ("b.jpg", photo(2)), ("c.txt", b"no image")))
        await client.get("/secret-path")
        await client.request("BREW", "/")
        return await client.get("/metrics")

    answer = talk(engine, story)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert lines['laconic_requests_total{method="POST",path="/caption",status="200"}'] == "1.0"
    assert lines['laconic_requests_total{method="GET",path="other",status="404"}'] == "1.0"
    assert lines['laconic_requests_total{method="other",path="/",status="405"}'] == "1.0"
    assert lines["laconic_captions_total"] == "2.0"
    assert lines["laconic_images_refused_total"] == "1.0"
    assert lines["laconic_batch_images_sum"] == "2.0"
    assert lines["laconic_queue_images"] == lines["laconic_accepted_images"] == lines["laconic_upload_bytes"] == "0.0"
    assert lines['laconic_request_seconds_count{path="/caption"}'] == "1.0"
    assert "secret" not in answer.text


def test_nothing_is_written(talk, engine, photo, monkeypatch):
    """Not even large uploads, which Starlette's own parser of forms would put into a file."""
    import tempfile

    def refuse(*given, **named):
        raise AssertionError("a temporary file")

    for name in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    answer = asked(talk, engine, **form(("large.png", photo(1, "PNG", (900, 900)))))
    assert answer.json()["images"][0]["bytes"] > 2_000_000


def test_a_captioner_of_regions_is_refused(random_captioner):
    from laconic.spec.model import EncoderConfig

    file = random_captioner("up_down", EncoderConfig("regions", channels=12))
    with pytest.raises(ConfigError, match="region features"):
        Service(Engine.load(file), "regions", Settings())


@pytest.mark.parametrize(
    "limits",
    [
        {"queue": 0},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"max_images": 65},
        {"pixels": 10**9},
        {"body_bytes": -1},
    ],
)
def test_limits_that_cannot_be(limits):
    with pytest.raises(ConfigError):
        Settings(**limits)


def test_every_format_is_read(talk, engine, photo):
    files = [(f"a.{kind.lower()}", photo(1, kind)) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    assert all("caption" in image for image in asked(talk, engine, **form(*files)).json()["images"])


def test_animations_and_transparency_are_images_too(talk, engine):
    from PIL import Image

    file = io.BytesIO()
    frames = [Image.new("RGBA", (30, 30), (255, 0, 0, level)) for level in (0, 128)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    assert asked(talk, engine, content=file.getvalue()).status_code == 200
