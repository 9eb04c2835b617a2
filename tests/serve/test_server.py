"""The process: where it listens, and how it ends."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from laconic.errors import ConfigError
from laconic.serve.server import Server, address_of, beyond_loopback, listen
from laconic.serve.service import Service
from laconic.serve.settings import Settings
from laconic.spec.model import EncoderConfig


def closing(sockets):
    for one in sockets:
        one.close()


def test_a_port_that_is_free_and_one_that_is_taken():
    sockets = listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    assert not beyond_loopback(sockets)
    assert sockets[0].proto == socket.IPPROTO_TCP  # else answers wait for 40 ms
    assert address_of(sockets[0], "127.0.0.1") == f"http://127.0.0.1:{port}"
    with pytest.raises(ConfigError, match=f"--port {port}: cannot listen there"):
        listen("127.0.0.1", port)
    closing(sockets)


def test_a_name_of_several_addresses_has_one_port():
    sockets = listen("localhost", 0)
    assert len({one.getsockname()[1] for one in sockets}) == 1
    assert not beyond_loopback(sockets)
    assert address_of(sockets[0], "localhost").startswith("http://localhost:")
    closing(sockets)


def test_all_addresses_are_beyond_this_machine():
    sockets = listen("0.0.0.0", 0)
    assert beyond_loopback(sockets)
    assert address_of(sockets[0], "0.0.0.0").startswith("http://127.0.0.1:")
    closing(sockets)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_version_six():
    try:
        sockets = listen("::1", 0)
    except ConfigError:
        pytest.skip("no IPv6 loopback here")
    assert not beyond_loopback(sockets)
    assert address_of(sockets[0], "::1").startswith("http://[::1]:")
    closing(sockets)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 300, "192.0.2.1"])
def test_a_host_that_is_not_here(host):
    with pytest.raises(ConfigError, match="--host"):
        listen(host, 0)


# The end


def asked(client: socket.socket) -> bytes:
    """First line of the answer to a question of whether the server is ready; nothing where it just hung up."""
    with client, suppress(ConnectionError):
        client.settimeout(20)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return client.recv(4096).partition(b"\r\n")[0]
    return b""


@pytest.mark.parametrize("turns", range(5))
def test_who_has_just_connected_hears_of_the_end(engine, turns):
    """However far asyncio has come with a connection: between accepting it and knowing of it lie turns of its loop."""

    async def end() -> list[bytes]:
        sockets = listen("127.0.0.1", 0)
        service = Service(engine, "tiny", Settings())
        server = Server(service, lambda _: None)
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets)
        clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(8)]
        for _ in range(turns):
            await asyncio.sleep(0)
        service.stopping = True
        answers = asyncio.gather(*(asyncio.to_thread(asked, client) for client in clients))
        await server.shutdown(sockets)
        service.close()
        return await answers

    assert asyncio.run(end()) == [b"HTTP/1.1 503 Service Unavailable"] * 8


# Processes


@pytest.fixture
def process(random_captioner, tmp_path):
    """A process that serves, and its address."""
    file = random_captioner("soft_attention", EncoderConfig("vgg_small", 64, 16))

    @contextmanager
    def start(*words):
        command = [sys.executable, "-m", "laconic", "serve", str(file), "--port", "0", *words]
        with (tmp_path / "errors").open("w+") as errors:
            running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=tmp_path)
            try:
                said = running.stdout.readline()
                assert "http://" in said, (tmp_path / "errors").read_text()
                yield running, said.split("http://")[1].split()[0]
            finally:
                running.kill()
                running.wait()
                running.stdout.close()

    return start


def errors(tmp_path: Path) -> str:
    return (tmp_path / "errors").read_text()


def test_every_accepted_request_is_answered_before_the_end(process, photo, tmp_path):
    """Clients that never rest, and SIGTERM: each request gets its caption, or is told that the server is stopping."""
    answers, failures = [], []
    files = [("image", (f"{seed}.jpg", photo(seed, size=(400, 400)))) for seed in range(8)]

    def client(address):
        with httpx.Client(timeout=30) as http:
            while True:
                try:
                    answers.append(
                        http.post(f"http://{address}/caption?beam=10&max_length=50", files=files).status_code
                    )
                except httpx.ConnectError:  # nobody listens any more
                    return
                except httpx.HTTPError as error:
                    failures.append(error)
                    return
                if answers[-1] == 503:
                    time.sleep(0.02)

    with process() as (running, address):
        threads = [threading.Thread(target=client, args=(address,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        while len(answers) < 6:
            time.sleep(0.01)
        before = len(answers)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
        for thread in threads:
            thread.join(20)
    assert not failures
    assert set(answers) <= {200, 503}
    assert answers[before:].count(200)
    assert errors(tmp_path).count("stopping once") <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_server_ends_at_once(process, tmp_path, number):
    with process() as (running, address):
        with httpx.Client() as http:
            assert http.get(f"http://{address}/health").status_code == 200  # the connection stays open
            running.send_signal(number)
            assert running.wait(10) == 0
        assert errors(tmp_path) == ""
        assert running.stdout.read() == ""


def test_a_second_signal_ends_it_though_a_request_is_not_answered(process):
    with process() as (running, address):
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
            time.sleep(0.5)
            running.send_signal(signal.SIGINT)
            health = httpx.get(f"http://{address}/health")
            assert (health.status_code, health.json()) == (503, {"status": "stopping"})
            assert running.poll() is None
            running.send_signal(signal.SIGINT)
            assert running.wait(10) == 128 + signal.SIGINT


def test_what_it_logs(process, photo, tmp_path):
    with process("--access-log") as (running, address):
        httpx.post(f"http://{address}/caption?beam=2", content=photo(1))
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
    (line,) = errors(tmp_path).splitlines()
    assert "POST /caption 200" in line
    assert "127.0.0.1" in line


def test_strangers_images_say_nothing_on_standard_error(process, photo, tmp_path):
    from PIL import Image

    odd = [photo(1)[:-2], photo(2)[:-300], b"II*\0" + os.urandom(200)]
    file = tmp_path / "odd.tif"
    Image.new("L", (8, 8)).save(file)
    odd.append(file.read_bytes()[:-4])
    with process() as (running, address):
        for data in odd:
            assert httpx.post(f"http://{address}/caption", content=data).status_code in (200, 422)
        headers = {"content-type": "multipart/form-data; boundary=y"}
        assert httpx.post(f"http://{address}/caption", content=b"no form", headers=headers).status_code == 400
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
    assert errors(tmp_path) == ""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_in_a_flood_of_fifty_hostile_uploads(process, photo, tmp_path):
    """Bombs of 24 megapixels, whole and cut, texts packed into a header, nonsense: and an honest client beside them."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    def encoded(kind, image, **options):
        image.save(tmp_path / "file", kind, **options)
        return (tmp_path / "file").read_bytes()

    black, texts = Image.new("RGB", (5990, 4000)), PngInfo()
    for number in range(60):
        texts.add_text(f"key{number}", " " * 1_000_000, zip=True)
    bomb = encoded("PNG", black)
    bad = [bomb, bomb[:20_000], encoded("JPEG", black, progressive=True), photo(1)[:200], bytes(6_000_000)]
    bad.append(encoded("PNG", Image.new("RGB", (8, 8)), pnginfo=texts))
    statuses, honest = [], []

    def attack(address, number):
        for turn in range(4):
            data = bad[(number + turn) % len(bad)]
            statuses.append(httpx.post(f"http://{address}/caption", content=data, timeout=60).status_code)

    with process() as (running, address):
        threads = [threading.Thread(target=attack, args=(address, number)) for number in range(50)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            started = time.perf_counter()
            assert httpx.post(f"http://{address}/caption", content=photo(1), timeout=60).status_code == 200
            honest.append(time.perf_counter() - started)
        status = Path(f"/proc/{running.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        assert running.poll() is None
    assert peak * 1024 < 400e6
    assert len(statuses) == 200
    assert set(statuses) <= {200, 422, 503, 504}
    assert statuses.count(422) > 80
    assert max(honest) < 15
    assert errors(tmp_path) == ""
