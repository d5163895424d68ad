"""Downloads, from a server on this machine that cuts them off, corrupts and redirects them."""

import hashlib
import http.client
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from assertions import complaint
from dhn.base.cache import cache_folder
from dhn.commands.console import Bar
from dhn.weights import download
from dhn.weights.download import cached, fetch
from dhn.weights.zoo import PUBLISHED
from download_server import named, serving

CONTENT = np.random.default_rng(0).bytes(300_000)
PART = 100_000


@pytest.fixture
def server():
    with serving({f"/{named(CONTENT)}": CONTENT}) as server:
        yield server


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("DHN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSE", 0)


def address_of(server, name=None):
    return server.address + (name or named(CONTENT))


def ranges(server):
    return [wanted for _, wanted in server.requests]


def part_of(address):
    path = cached(address)
    return path.with_name(path.name + ".part")


def test_a_file_is_downloaded_once(server, tmp_path):
    path = fetch(address_of(server))
    assert path == tmp_path / "home" / "checkpoints" / named(CONTENT)
    assert path.read_bytes() == CONTENT
    assert fetch(address_of(server), offline=True) == path
    assert ranges(server) == [None]
    assert {p.name for p in path.parent.iterdir()} == {path.name, ".lock"}


def test_a_download_that_is_cut_off_resumes(server):
    server.mishaps = [("cut", PART), ("cut", 1), ("status", 503)]
    assert fetch(address_of(server)).read_bytes() == CONTENT
    again = f"bytes={PART + 1}-"
    assert ranges(server) == [None, f"bytes={PART}-", again, again]


def test_a_later_call_resumes_where_the_last_one_ended(server):
    server.mishaps = [("cut", PART // 4)] * download.ATTEMPTS
    message = complaint(fetch, address_of(server))
    assert message.startswith(f"{address_of(server)}: cannot be downloaded (cut off after {PART} ")
    assert "try again, the download resumes where it was cut off" in message
    assert not cached(address_of(server)).exists()
    assert part_of(address_of(server)).read_bytes() == CONTENT[:PART]
    server.requests.clear()
    assert "cannot be downloaded offline" in complaint(fetch, address_of(server), offline=True)
    assert fetch(address_of(server)).read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={PART}-"]
    assert not part_of(address_of(server)).exists()


def test_a_server_that_knows_no_ranges_sends_all_again(server):
    server.mishaps = [("cut", PART), ("ignore range", None)]
    assert fetch(address_of(server)).read_bytes() == CONTENT


@pytest.mark.parametrize("off", [PART, -1])
def test_another_part_than_asked_for_is_not_taken(server, off):
    server.mishaps = [("cut", PART), ("wrong part", off)]
    assert fetch(address_of(server)).read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={PART}-", f"bytes={PART}-"]


@pytest.mark.parametrize("length", ["corrupt", "no length"])
def test_a_hash_that_differs_is_refused(server, length):
    if length == "corrupt":
        server.mishaps = [("corrupt", 1234)]
    else:  # nobody knows how long it should have been
        server.files[f"/{named(CONTENT)}"] = CONTENT[:-1]
        server.mishaps = [("no length", None)]
    message = complaint(fetch, address_of(server))
    assert re.search(r"refused, its SHA-256 begins with \w{8}, not \w{8}: it was damaged", message)
    assert message.startswith(address_of(server))
    assert len(server.requests) == 1
    assert [p.name for p in cached(address_of(server)).parent.iterdir()] == [".lock"]
    assert fetch(address_of(server)).read_bytes() == CONTENT if length == "corrupt" else True


@pytest.mark.parametrize("beginning", [b"of another file", bytes(len(CONTENT)), bytes(10**6)])
def test_a_beginning_that_does_not_belong_is_thrown_away(server, beginning):
    part = part_of(address_of(server))
    part.parent.mkdir(parents=True)
    part.write_bytes(beginning)
    assert fetch(address_of(server)).read_bytes() == CONTENT


def test_redirects_are_followed(server):
    server.mishaps = [("redirect", "/a"), ("redirect", address_of(server, "b")), ("redirect", "/c")]
    server.files["/c"] = CONTENT
    server.mishaps[-1] = ("redirect", "/c?token=1")
    assert fetch(address_of(server)).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == [f"/{named(CONTENT)}", "/a", "/b", "/c"]


def test_a_circle_of_redirects_ends(server):
    server.mishaps = [("redirect", "/x")] * 100
    assert "HTTP 302" in complaint(fetch, address_of(server))
    assert len(server.requests) <= 12


@pytest.mark.parametrize(
    "target", ["http://example.org/x.pth", "ftp://127.0.0.1/x.pth", "file:///etc/passwd"]
)
def test_redirects_away_from_https_are_refused(server, target):
    server.mishaps = [("redirect", target)]
    message = complaint(fetch, address_of(server))
    assert target in message
    assert len(server.requests) == 1
    assert not cached(address_of(server)).exists()


def test_a_file_may_come_in_pieces(server):
    server.mishaps = [("pieces", 20_000)]
    assert fetch(address_of(server)).read_bytes() == CONTENT
    assert ranges(server) == [None]


def test_a_server_that_falls_silent_is_asked_again(server, monkeypatch):
    """Where the server cuts off, the test lets the client's socket run out of time instead."""
    read, connect, limits = http.client.HTTPResponse.read1, socket.create_connection, set()

    def read_or_time_out(response, size):
        chunk = read(response, size)
        if not chunk and response.length:
            raise TimeoutError("timed out")
        return chunk

    def connect_within(address, timeout, *arguments):
        limits.add(timeout)
        return connect(address, timeout, *arguments)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", read_or_time_out)
    monkeypatch.setattr(socket, "create_connection", connect_within)
    server.mishaps = [("cut", PART)]
    assert fetch(address_of(server)).read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={PART}-"]
    server.files["/other.pth"] = CONTENT
    server.mishaps = [("cut", 0)] * download.ATTEMPTS
    message = complaint(fetch, address_of(server, "other.pth"))
    assert message.endswith("cannot be downloaded (no answer for 30 s); try again")
    assert limits == {download.TIMEOUT} == {30}


def test_a_missing_file_is_one_line_and_one_request(server):
    message = complaint(fetch, address_of(server, "none.pth"))
    assert message == f"{address_of(server, 'none.pth')}: cannot be downloaded (HTTP 404 Not Found)"
    assert len(server.requests) == 1


def test_no_connection_is_one_line(server):
    address = "http://localhost:1/x.pth"
    assert complaint(fetch, address).startswith(f"{address}: cannot be downloaded (")
    assert "check the address and the network" in complaint(fetch, address)


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/x.pth",
        "http://localhost.example.org/x.pth",
        "ftp://example.org/x.pth",
        "file:///etc/passwd",
        "https:///x.pth",
        "http://[::1/x.pth",
    ],
)
def test_only_https_is_downloaded(address):
    assert complaint(fetch, address).startswith(f"{address}: is ")


def test_addresses_without_a_hash_are_kept_apart(server):
    files = {f"/{folder}/model.pth": b"\x80\2" + folder.encode() for folder in ("a", "b")}
    server.files |= files
    for path, content in files.items():
        assert fetch(server.address + path[1:]).read_bytes() == content
    for path, content in files.items():
        kept = fetch(server.address + path[1:], offline=True)
        assert (kept.name, kept.read_bytes()) == ("model.pth", content)


@pytest.mark.parametrize("suffix", [".pth", ".pt2", ".pth.tar", "_20201017.safetensors"])
def test_a_hash_is_found_before_any_suffix(server, suffix):
    right = f"a-{hashlib.sha256(CONTENT).hexdigest()[:8]}{suffix}"
    server.files = {f"/{right}": CONTENT, f"/a-01234567{suffix}": CONTENT}
    assert fetch(address_of(server, right)).read_bytes() == CONTENT
    assert "not 01234567" in complaint(fetch, address_of(server, f"a-01234567{suffix}"))


def test_without_a_hash_nothing_of_an_earlier_call_is_trusted(server):
    server.files["/model.pth"] = CONTENT
    address = address_of(server, "model.pth")
    server.mishaps = [("cut", 10)] * download.ATTEMPTS
    complaint(fetch, address)
    server.files["/model.pth"] = other = CONTENT[::-1]
    assert fetch(address).read_bytes() == other


@pytest.mark.parametrize("name", ["", "..", "%2e%2e", "a%00b.pth", "a%5cb.pth"])
def test_an_address_names_a_file(name):
    assert "names no file" in complaint(fetch, f"https://example.org/{name}")


def test_several_at_once_are_one_download(server, monkeypatch):
    """All four have seen that the file is missing before the first of them downloads it."""
    barrier = threading.Barrier(4)

    class Lock(download.FileLock):
        def __enter__(self):
            barrier.wait()
            return super().__enter__()

    monkeypatch.setattr(download, "FileLock", Lock)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: fetch(address_of(server)), range(4)))
    assert [path.read_bytes() for path in paths] == [CONTENT]
    assert len(server.requests) == 1


def test_a_full_disk_is_one_line(server, full_disk):
    with full_disk(PART):
        message = complaint(fetch, address_of(server))
    assert message.startswith(f"{cached(address_of(server))}: cannot be written (")
    assert not cached(address_of(server)).exists()
    assert fetch(address_of(server)).read_bytes() == CONTENT


def test_a_bar_shows_megabytes(server):
    counted = []

    class Counting(Bar):
        def advance(self, steps=1, note=""):
            counted.append((steps, (self.total, self.description)))

    content = bytes(3_500_000)
    server.files[f"/{named(content)}"] = content
    server.mishaps = [("cut", 1_700_000)]
    fetch(address_of(server, named(content)), progress=Counting)
    assert sum(steps for steps, _ in counted) == 1 + 1 + 2  # 1 before the cut; 1 kept and 2 more
    description = f"Downloading {named(content)} (MB)"
    assert all(about == (3, description) for _, about in counted)


@pytest.mark.parametrize("name", ["none.pth", "here.pth", "folder/none", "./none"])
def test_paths_are_returned_as_they_are(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("here.pth").touch()
    assert fetch(name) == Path(name)
    assert fetch(Path(name)) == Path(name)


def test_unknown_names_are_one_line(tmp_path, monkeypatch):
    assert "do you mean higherhrnet_w32_coco?" in complaint(fetch, "higherhrnet_w32_coc")
    message = complaint(fetch, "quux")
    assert message.startswith("quux: no such file, and no published checkpoint; ")
    assert all(name in message for name in PUBLISHED)
    name = next(iter(PUBLISHED))
    message = complaint(fetch, name, offline=True)
    assert message.startswith(f"{name}: is not in the cache ({tmp_path}")
    assert message.endswith("and cannot be downloaded offline")
    monkeypatch.chdir(tmp_path)
    Path(name).touch()  # a file of that name wins
    assert fetch(name, offline=True) == Path(name)


def test_the_cache_folder(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "home"
    monkeypatch.setenv("DHN_HOME", "~/weights")
    assert cache_folder() == Path.home() / "weights"
    monkeypatch.delenv("DHN_HOME")
    assert cache_folder() == Path(platformdirs.user_cache_dir("dhn", appauthor=False))
