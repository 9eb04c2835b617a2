"""A real server against clients that are slow, silent, or send work instead of bytes."""

import contextlib
import socket
import threading
import time

import httpx

from laconic.serve import server

HEAD = b"POST /caption HTTP/1.1\r\nHost: localhost\r\n"


def connect(port, *sent):
    one = socket.create_connection(("127.0.0.1", port), timeout=20)
    for data in sent:
        one.sendall(data)
    return one


def answer(one):
    """All that comes until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := one.recv(65536):
            received += data
    one.close()
    return received


def seconds_of_a_caption(port, data):
    started = time.perf_counter()
    found = httpx.post(f"http://127.0.0.1:{port}/caption", content=data, timeout=20)
    assert found.status_code == 200
    return time.perf_counter() - started


def test_captions_over_the_network(served, engine, photo):
    with served(engine) as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        found = [client.post("/caption", content=photo(1)).json()["images"][0]["caption"] for _ in range(2)]
        assert found == [found[0]] * 2  # over one connection
        health = client.get("/health")
        assert "server" not in health.headers
        assert client.get("/").text.startswith("<!doctype html>")


def test_a_head_has_its_time(served, engine):
    with served(engine, stall_timeout=0.2) as (port, _):
        for sent, received in ((HEAD, b"HTTP/1.1 408"), (b"", b"")):
            one = connect(port, sent)
            assert answer(one).startswith(received)
        again = connect(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert again.recv(65536).startswith(b"HTTP/1.1 200")
        again.sendall(b"GET /hea")  # the next request of the same connection
        assert b"HTTP/1.1 408" in answer(again)


def test_slow_bodies_are_told_so_and_stand_in_nobodys_way(served, engine, photo):
    with served(engine, stall_timeout=3.0) as (port, service):
        slow = [connect(port, HEAD + b"Content-Length: 1000\r\n\r\n" + b"x" * 10) for _ in range(60)]
        while service.working < 60:  # before the first has been too slow
            time.sleep(0.01)
        assert seconds_of_a_caption(port, photo(1)) < 5
        for one in slow:
            received = answer(one)
            assert received.startswith(b"HTTP/1.1 408")
            assert b"too slowly" in received


def test_chunks_of_a_byte_end_the_connection_and_others_do_not_wait(served, engine, photo):
    body = b"1\r\nx\r\n" * 300_000

    def attack(port):
        with contextlib.suppress(OSError):
            one = connect(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            with one:
                one.sendall(body)

    with served(engine) as (port, service):
        threads = [threading.Thread(target=attack, args=(port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert seconds_of_a_caption(port, photo(1)) < 5
        for thread in threads:
            thread.join(20)
        assert service.uploads.held == service.working == 0


def test_chunks_of_a_usual_size_are_read(served, engine, photo):
    data = photo(1, size=(300, 300))

    def chunks(size):
        return (data[start : start + size] for start in range(0, len(data), size))

    with served(engine) as (port, _):
        for size in (64, 1000, 10**6):
            found = httpx.post(f"http://127.0.0.1:{port}/caption", content=chunks(size), timeout=20)
            assert found.json()["images"][0]["bytes"] == len(data)


def test_of_too_many_connections_the_silent_ones_go(served, engine, photo, monkeypatch):
    monkeypatch.setattr(server, "_connections", lambda: 20)
    with served(engine) as (port, _):
        silent = [connect(port) for _ in range(50)]
        for _ in range(3):
            assert seconds_of_a_caption(port, photo(1)) < 5
        assert answer(silent[0]) == b""  # closed, long before its time
        silent[-1].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b'"ready"' in answer(silent[-1])
        for one in silent:
            one.close()


def test_the_answer_to_a_body_that_is_too_large_arrives(served, engine):
    """Though the client sends all of it before it looks."""
    with served(engine, body_bytes=1000) as (port, _):
        received = answer(connect(port, HEAD + b"Content-Length: 3000000\r\n\r\n", bytes(3_000_000)))
        assert received.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in received.lower()
        polite = connect(port, HEAD + b"Expect: 100-continue\r\nContent-Length: 3000000\r\n\r\n")
        assert answer(polite).startswith(b"HTTP/1.1 413")  # before anything was sent


def test_who_leaves_makes_room(served, held, photo):
    with served(held, threads=1, queue=2, max_images=2) as (port, service):
        data = photo(1)
        head = HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode()
        first, second = connect(port, head, data), connect(port, head, data)
        while service.accepted < 2:
            time.sleep(0.01)
        second.close()
        while service.accepted > 1:
            time.sleep(0.01)
        held.gate.set()
        assert first.recv(65536).startswith(b"HTTP/1.1 200")
        first.close()


def test_a_long_head_and_nonsense_are_refused(served, engine):
    with served(engine) as (port, _):
        long = connect(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40_000)
        assert answer(long)[:12] in (b"HTTP/1.1 400", b"")
        assert answer(connect(port, b"\x16\x03\x01\x02\x00" * 20 + b"\r\n\r\n")).startswith(b"HTTP/1.1 400")
