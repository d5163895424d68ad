"""What a server or another user of the machine cannot make of a download."""

import contextlib
import os
import re
import socket
import threading

import pytest

from assertions import complaint
from dhn.weights import download
from dhn.weights.download import cached, fetch
from dhn.weights.zoo import PUBLISHED, Published
from download_server import named, serving

CONTENT = b"\x80\x02" + bytes(range(256)) * 400


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("DHN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSE", 0)
    with serving({f"/{named(CONTENT)}": CONTENT, "/model.pth": CONTENT}) as server:
        yield server


def part_of(address):
    path = cached(address)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".part")


def cached_files(address):
    return {path.name for path in cached(address).parent.iterdir()}


NAMES = [named(CONTENT), "model.pth"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_in_the_place_of_a_part_is_not_followed(server, tmp_path, name, link):
    victim = tmp_path / "victim"
    victim.write_bytes(CONTENT[:10])
    link(victim, part_of(server.address + name))
    path = fetch(server.address + name)
    assert path.read_bytes() == CONTENT
    assert not path.is_symlink()
    assert victim.read_bytes() == CONTENT[:10]


def test_a_link_that_appears_in_between_is_not_followed(server, tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    part = part_of(server.address + NAMES[0])
    open_address = download._open

    def swapped(address, start):
        part.unlink(missing_ok=True)
        part.symlink_to(victim)
        return open_address(address, start)

    monkeypatch.setattr(download, "_open", swapped)
    assert "cannot be written" in complaint(fetch, server.address + NAMES[0])
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_in_the_place_of_a_part_is_not_waited_for(server, name):
    os.mkfifo(part_of(server.address + name))
    assert fetch(server.address + name).read_bytes() == CONTENT


def test_the_lock_is_no_link_either(server, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    address = server.address + NAMES[0]
    part_of(address).with_name(".lock").symlink_to(victim)
    assert fetch(address).read_bytes() == CONTENT
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mishap", [None, ("no length", None)])
def test_a_file_has_a_largest_size(server, monkeypatch, name, mishap):
    monkeypatch.setattr(download, "LARGEST", len(CONTENT) - 1)
    server.mishaps = [mishap] if mishap else []
    address = server.address + name
    message = complaint(fetch, address)
    assert message.startswith(
        f"{address}: refused, it has more than 0 MiB, the limit of a download"
    )
    assert cached_files(address) == {".lock"}
    monkeypatch.setattr(download, "LARGEST", len(CONTENT))
    assert fetch(address).read_bytes() == CONTENT


def test_a_length_with_thousands_of_digits(server, monkeypatch):
    headers = {"Content-Length": "9" * 5000}
    get = download.http.client.HTTPMessage.get
    monkeypatch.setattr(
        download.http.client.HTTPMessage,
        "get",
        lambda self, name, default=None: headers.get(name, get(self, name, default)),
    )
    assert "the limit of a download" in complaint(fetch, server.address + "model.pth")


def test_a_download_has_a_longest_time(server, monkeypatch):
    monkeypatch.setattr(download, "LONGEST", -1.0)  # it is over before it begins
    address = server.address + NAMES[0]
    assert "was not downloaded within" in complaint(fetch, address)
    assert not cached(address).exists()
    monkeypatch.undo()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "page",
    [
        b"<html>Please log in to this network</html>",
        b"\n\n  <!DOCTYPE html>",
        b"\xef\xbb\xbf<?xml version='1.0'?>",
        b'{"error": "not found"}',
        b"version https://git-lfs.github.com/spec/v1\n",
        b"",
    ],
)
def test_a_page_instead_of_the_file_is_refused(server, name, page):
    server.files[f"/{name}"] = page
    address = server.address + name
    message = complaint(fetch, address)
    assert message.startswith(f"{address}: refused, the server sent no weights, but a web page")
    assert cached_files(address) == {".lock"}
    server.files[f"/{name}"] = CONTENT
    assert fetch(address).read_bytes() == CONTENT


def test_what_the_server_calls_a_page_is_one(server):
    server.mishaps = [("type", "text/html; charset=utf-8")]
    assert "a web page" in complaint(fetch, server.address + "model.pth")
    assert cached_files(server.address + "model.pth") == {".lock"}


def test_the_body_of_a_redirect_is_not_read(server):
    server.mishaps = [("redirect", "/model.pth")]
    server.redirect_body = b"x"  # of the ten bytes that it promises; reading them would fail
    assert fetch(server.address + NAMES[0]).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == [f"/{NAMES[0]}", "/model.pth"]


def test_a_backbone_may_have_other_digits(server, monkeypatch, caplog):
    """Nobody says that the digits in the names of MMPose's ImageNet files are a SHA-256."""
    server.files["/hrnet_w32-36af842e.pth"] = CONTENT
    address = server.address + "hrnet_w32-36af842e.pth"
    assert "refused, its SHA-256 begins with" in complaint(fetch, address)
    monkeypatch.setitem(PUBLISHED, "backbone", Published(address, 1.0, "ImageNet"))
    path = fetch("backbone")
    assert path.read_bytes() == CONTENT
    (record,) = caplog.records
    assert re.search(r"its SHA-256 begins with \w{8}, and its name has 36af842e", record.message)
    assert fetch("backbone", offline=True) == path
    part = part_of(address)  # a beginning from another day is not glued to the rest
    path.unlink()
    part.write_bytes(b"\x80 another beginning")
    assert fetch("backbone").read_bytes() == CONTENT


def test_a_backbone_that_was_cut_off_is_not_kept(server, monkeypatch):
    server.files["/hrnet_w32-36af842e.pth"] = CONTENT
    address = server.address + "hrnet_w32-36af842e.pth"
    monkeypatch.setitem(PUBLISHED, "backbone", Published(address, 1.0, "ImageNet"))
    server.mishaps = [("cut", 100)] * download.ATTEMPTS
    assert "cut off after" in complaint(fetch, "backbone")
    assert not cached(address).exists()


STARTS = {
    "HEADERS": b"HTTP/1.1 200 OK\r\nX-Drip: ",
    "LONGEST": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
}


@pytest.mark.parametrize("limit", STARTS)
def test_a_server_that_drips_holds_no_download(tmp_path, monkeypatch, limit):
    """It sends a byte now and then, in the headers or in the length of a piece, for ever."""
    monkeypatch.setenv("DHN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    monkeypatch.setattr(download, limit, 0.2)
    gone = threading.Event()

    def drip(listener):
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            peer.recv(4096)
            peer.sendall(STARTS[limit])
            while not gone.wait(0.01):
                peer.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=drip, args=[listener])
        server.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/{named(CONTENT)}"
        message = complaint(fetch, address)
        gone.set()
        server.join()
    assert message.startswith(f"{address}: cannot be downloaded (")
    assert not cached(address).exists()
