"""Fetching, against a server on localhost that behaves well or badly."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from qlearn.errors import ChecksumError, DataError, MissingDataError
from qlearn.zoo import fetch as fetch_module
from qlearn.zoo.fetch import REMOTE, RemoteFile, cache_folder, fetch

CONTENT = np.random.default_rng(0).bytes(300_001)


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; the test sets the manners on the server."""

    def do_GET(self):
        server = self.server
        wish = self.headers.get("Range")
        server.wishes.append(wish)
        if server.status != 200:
            self.send_error(server.status)
            return
        if server.garbled:
            server.garbled = False
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3e8\r\n" + CONTENT[:1000] + b"\r\nno number\r\n")
            return
        match = re.fullmatch(r"bytes=(\d+)-", wish or "") if server.ranges else None
        start = int(match[1]) if match else 0
        if match and start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if match else 200)
        if match:
            shown = start + server.shift
            self.send_header("Content-Range", f"bytes {shown}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut] if server.cut is not None else body)
        server.cut = None  # only the first connection breaks

    def log_message(self, *args):
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.ranges, server.cut, server.status, server.shift = CONTENT, True, None, 200, 0
        server.wishes, server.garbled = [], False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/net.bin"
        remote = RemoteFile(address, "nets/net.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "MIT")
        monkeypatch.setitem(REMOTE, "net", remote)
        monkeypatch.setenv("no_proxy", "*")
        yield server
        server.shutdown()
        thread.join()


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_fetches_once(server, tmp_path):
    path = fetch("net", tmp_path)
    assert path == tmp_path / "nets" / "net.bin"
    assert path.read_bytes() == CONTENT
    assert listing(tmp_path) == ["nets/net.bin"]
    assert fetch("net", str(tmp_path)) == path
    assert server.wishes == [None]


def test_goes_into_the_cache_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("QLEARN_CACHE", str(tmp_path / "cache"))
    assert fetch("net") == tmp_path / "cache" / "nets" / "net.bin"


def test_replaces_a_damaged_target(server, tmp_path):
    path = fetch("net", tmp_path)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch("net", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_resumes_after_a_broken_connection(server, tmp_path, ranges: bool):
    server.cut, server.ranges = 100_000, ranges
    with pytest.raises(DataError, match=r"100000 of 300001 bytes; run it again"):
        fetch("net", tmp_path)
    assert listing(tmp_path) == ["nets/net.bin.part"]
    assert fetch("net", tmp_path).read_bytes() == CONTENT
    assert listing(tmp_path) == ["nets/net.bin"]
    assert server.wishes == [None, "bytes=100000-"]


def test_resumes_after_a_garbled_answer(server, tmp_path):
    server.garbled = True
    with pytest.raises(DataError, match=r"the connection to .* broke .*it goes on from there"):
        fetch("net", tmp_path)
    assert fetch("net", tmp_path).read_bytes() == CONTENT
    assert server.wishes == [None, "bytes=1000-"]


def test_starts_anew_when_the_server_resumes_elsewhere(server, tmp_path):
    server.cut, server.shift = 1000, 1
    with pytest.raises(DataError):
        fetch("net", tmp_path)
    assert fetch("net", tmp_path).read_bytes() == CONTENT
    assert server.wishes == [None, "bytes=1000-", None]


def test_starts_anew_when_the_server_refuses_the_range(server, tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net.bin.part").write_bytes(CONTENT[:-1])
    server.content = CONTENT[:-1]  # shorter than promised: 416, then a fresh start, then too short
    with pytest.raises(DataError, match="ended after 300000 of 300001 bytes"):
        fetch("net", tmp_path)
    assert server.wishes == ["bytes=300000-", None]


@pytest.mark.parametrize("extra", [0, 5])
def test_partial_file_that_is_long_enough(server, tmp_path, extra: int):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net.bin.part").write_bytes(CONTENT + bytes(extra))
    assert fetch("net", tmp_path).read_bytes() == CONTENT
    assert server.wishes == ([None] if extra else [])


def test_foreign_partial_file_is_removed(server, tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net.bin.part").write_bytes(b"something else")
    with pytest.raises(ChecksumError):
        fetch("net", tmp_path)
    assert fetch("net", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", CONTENT + b"more", CONTENT * 3])
def test_wrong_bytes_are_not_kept(server, tmp_path, content: bytes):
    server.content = content
    with pytest.raises(ChecksumError, match=rf"expected SHA-256 {REMOTE['net'].sha256} .*it was removed"):
        fetch("net", tmp_path)
    assert listing(tmp_path) == []


def test_endless_answer_is_cut(server, tmp_path):
    server.content = CONTENT * 30
    with pytest.raises(ChecksumError) as caught:
        fetch("net", tmp_path)
    written = int(re.findall(r"\((\d+) bytes\)", str(caught.value))[-1])
    assert written <= len(CONTENT) + fetch_module.CHUNK


@pytest.mark.parametrize(("status", "kind"), [(404, MissingDataError), (503, DataError), (403, DataError)])
def test_server_errors_name_the_address_and_the_remedy(server, tmp_path, status: int, kind: type):
    server.status = status
    with pytest.raises(kind, match=rf"answered {status} .* for http://127\.0\.0\.1.*net\.bin.*QLEARN_DATA"):
        fetch("net", tmp_path)
    assert listing(tmp_path) == []


def test_no_server(server, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/net.bin"
    monkeypatch.setitem(REMOTE, "net", RemoteFile(address, "net.bin", 1, "0" * 64, "MIT"))
    with pytest.raises(DataError, match=r"cannot reach http://127.*check the network"):
        fetch("net", tmp_path)


def test_silent_server(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_module, "TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/net.bin"
        monkeypatch.setitem(REMOTE, "net", RemoteFile(address, "net.bin", 1, "0" * 64, "MIT"))
        with pytest.raises(DataError, match="timed out"):
            fetch("net", tmp_path)


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "nets").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cannot write .*QLEARN_CACHE"):
        fetch("net", tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk(server, tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "net.bin.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"cannot write .*make room"):
        fetch("net", tmp_path)


def test_unknown_name(tmp_path):
    with pytest.raises(MissingDataError, match=r"'alexnet'; there are mobilenet_v1_0.25, "):
        fetch("alexnet", tmp_path)


class Terminal:
    """A standard error stream that says it is a terminal."""

    def __init__(self):
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        """Nothing to do."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("progress", [True, False])
def test_bar_only_for_a_terminal(server, tmp_path, monkeypatch, capsys, progress: bool):
    pytest.importorskip("tqdm")
    fetch("net", tmp_path / "quiet", progress=progress)
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch("net", tmp_path / "seen", progress=progress)
    assert ("net: 100%" in terminal.text) == progress


def test_no_bar_without_tqdm(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert fetch("net", tmp_path).read_bytes() == CONTENT


def test_cache_folder_of_each_platform(monkeypatch, tmp_path):
    for variable in ("QLEARN_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    expected = {
        "linux": tmp_path / ".cache" / "qlearn",
        "darwin": tmp_path / "Library" / "Caches" / "qlearn",
        "win32": tmp_path / "AppData" / "Local" / "qlearn",
    }
    for platform, folder in expected.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == folder
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "L"))
    assert cache_folder() == tmp_path / "L" / "qlearn"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "X"))
    assert cache_folder() == tmp_path / "X" / "qlearn"
    monkeypatch.setenv("QLEARN_CACHE", str(tmp_path / "Q"))
    assert cache_folder() == tmp_path / "Q"


def test_table_is_well_formed():
    for name, remote in REMOTE.items():
        assert remote.address.startswith("https://github.com/"), name
        assert remote.address.endswith("/" + Path(remote.path).name), name
        assert re.fullmatch(r"[0-9a-f]{64}", remote.sha256), name
        assert remote.size > 1_000_000, name
