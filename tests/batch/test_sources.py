"""Files at URLs, from a real HTTP server: the same name for the same content, whatever signs the URL."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from batch.errors import BatchError
from batch.sources import Source, find, read

SIGNATURE = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=" + "0123456789abcdef" * 16


class Handler(BaseHTTPRequestHandler):
    content, marks, status = b"first", {"ETag": '"1"'}, 200

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.content)

    def do_HEAD(self):
        self.send_response(self.status)
        for name, value in {**self.marks, "Content-Length": str(len(self.content))}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    handler = type("Own", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield handler, address
        server.shutdown()


def found(address: str) -> Source:
    find.cache_clear()  # as after a new start
    return find(address, Path())


def test_a_signed_url(url):
    _, address = url
    source = found(f"{address}/films/my%20car.MP4?{SIGNATURE}")
    assert source.stem == "my car" and source.name == f"{source.digest[:20]}.mp4" and source.size == 5
    assert found(f"{address}/films/my%20car.MP4?{SIGNATURE[:-1]}0").digest == source.digest
    assert found(f"{address}/films/other.mp4?{SIGNATURE}").digest != source.digest
    assert found(f"{address}/films/car.{'x' * 300}").name == found(f"{address}/films/car.{'x' * 300}").digest[:20]


@pytest.mark.parametrize("name, one, other", [("ETag", '"1"', '"2"'), ("Last-Modified", "Mon, 1", "Tue, 2")])
def test_a_replaced_file_is_another_one(url, name, one, other):
    handler, address = url
    handler.marks = {name: one}
    before = found(f"{address}/car.mp4")
    assert found(f"{address}/car.mp4") == before
    handler.content, handler.marks = b"other", {name: other}
    assert found(f"{address}/car.mp4").digest != before.digest and read(f"{address}/car.mp4") == b"other"


def test_without_any_mark_the_whole_url_counts(url):
    handler, address = url
    handler.marks = {}
    assert found(f"{address}/get?id=1").digest != found(f"{address}/get?id=2").digest


def test_what_cannot_be_downloaded_is_a_plain_error(url, monkeypatch):
    """HTTP's errors are no `OSError`; a timeout would be taken for ComfyUI's, and says nothing."""
    handler, address = url
    handler.status = 403
    with pytest.raises(OSError, match=f"^{address}/car.mp4 cannot be read: .*403"):
        read(f"{address}/car.mp4")
    with pytest.raises(BatchError, match="car.mp4 cannot be read: "):
        found(f"{address}/car.mp4")
    import fsspec

    def slow(*_):
        raise TimeoutError

    system, _ = fsspec.core.url_to_fs(f"{address}/car.mp4")  # the one that is used for all of them
    monkeypatch.setattr(system, "cat_file", slow)
    with pytest.raises(OSError, match="cannot be read: TimeoutError$") as error:
        read(f"{address}/car.mp4")
    assert not isinstance(error.value, TimeoutError)


def test_the_time_of_the_last_access_does_not_count(monkeypatch):
    """As SFTP gives it; fsspec's own system in memory stands in for the server."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe_file("/films/car.mp4", b"first")
    about, times = system.info("/films/car.mp4"), iter(range(9))
    monkeypatch.setattr(type(system), "info", lambda self, path: {**about, "mtime": 1.0, "time": next(times)})
    assert found("memory://films/car.mp4") == found("memory://films/car.mp4")
    assert found("memory://car.mp4").stem == "car"
