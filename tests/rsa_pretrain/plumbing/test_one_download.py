"""Download a file from a server on the loopback address."""

import hashlib
from threading import Thread
from urllib.request import Request

import pytest
from file_server import FileServer

from rsa_pretrain.plumbing.download import Checksum, _SafeRedirects, download
from rsa_pretrain.plumbing.errors import UserError

CONTENT = bytes(range(256)) * 64
SHA256 = Checksum("sha256", hashlib.sha256(CONTENT).hexdigest()[:8])


@pytest.fixture
def server(monkeypatch):
    """A server that has one file, and states versions."""
    monkeypatch.setenv("no_proxy", "*")
    with FileServer() as running:
        running.files["weights.pth"] = CONTENT
        running.states_versions = True
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def cut(server, path, checksum):
    """Receive the first thousand bytes of the file."""
    server.cut_after = 1000
    with pytest.raises(UserError, match=r"the connection was cut after 1,000 of 16,384 bytes"):
        download(server.url + "weights.pth", path, checksum)
    server.cut_after = None


@pytest.mark.parametrize("checksum", [SHA256, None], ids=["checksum", "version"])
def test_a_cut_file_is_resumed(server, tmp_path, checksum):
    """The rest is requested, through redirects too, and nothing else stays in the folder."""
    path = tmp_path / "weights.pth"
    cut(server, path, checksum)
    assert not path.exists()
    server.redirects["old.pth"] = server.url + "weights.pth"
    download(server.url + "old.pth", path, checksum)
    assert path.read_bytes() == CONTENT
    assert server.starts == [0, 1000]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_has_changed_is_received_from_its_beginning(server, tmp_path):
    """Two versions are never joined, with no checksum to find it."""
    path = tmp_path / "weights.pth"
    cut(server, path, None)
    server.files["weights.pth"] = CONTENT[::-1]
    download(server.url + "weights.pth", path, None)
    assert path.read_bytes() == CONTENT[::-1]


def test_nothing_is_joined_where_neither_version_nor_checksum_is_known(server, tmp_path):
    """A server that states no version sends the whole file again."""
    server.states_versions = False
    path = tmp_path / "weights.pth"
    cut(server, path, None)
    download(server.url + "weights.pth", path, None)
    assert server.starts == [0, 0]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(("kept", "starts"), [(CONTENT, [16384]), (CONTENT + b"x", [16385, 0])])
def test_a_whole_partial_file_is_taken_only_if_it_has_the_length(server, tmp_path, kept, starts):
    """A kill before the rename costs nothing; a longer part is of another file."""
    path = tmp_path / "weights.pth"
    path.with_name("weights.pth.part").write_bytes(kept)
    version = hashlib.sha256(CONTENT).hexdigest()
    path.with_name("weights.pth.part.version").write_text(f'"{version}"')
    download(server.url + "weights.pth", path, None)
    assert (path.read_bytes(), server.starts) == (CONTENT, starts)


def test_a_wrong_file_is_removed(server, tmp_path):
    """The error has both hashes, as many digits as the publisher states."""
    wrong = Checksum("sha256", "0" * 8)
    with pytest.raises(UserError, match=f"SHA-256 is {SHA256.digits}, expected 00000000; it is re"):
        download(server.url + "weights.pth", tmp_path / "weights.pth", wrong)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_checked(server, tmp_path):
    """One that is right is used, another refused; neither is requested."""
    path = tmp_path / "weights.pth"
    path.write_bytes(CONTENT)
    download(server.url + "weights.pth", path, SHA256)
    with pytest.raises(UserError, match="its MD5 is 3df670, expected 000000"):
        download(server.url + "weights.pth", path, Checksum("md5", "000000"))
    assert server.asked == []


def test_a_web_page_is_no_file(server, tmp_path):
    """A dead link that leads to a page is refused before anything is written."""
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="is a web page, not a file; ask for a mirror"):
        download(server.url + "weights.pth", tmp_path / "x.pth", None, "ask for a mirror")
    assert list(tmp_path.iterdir()) == []


def test_a_dead_link_names_the_mirror(server, tmp_path):
    """The caller's advice ends the error, whether the server refuses or is gone."""
    with pytest.raises(UserError, match=r"answers 404 Not Found to .*gone\.pth; take a mirror"):
        download(server.url + "gone.pth", tmp_path / "x.pth", None, "take a mirror")
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"cannot reach .*; rerun the command, or take a mirror"):
        download(server.url + "weights.pth", tmp_path / "x.pth", None, "take a mirror")


def test_no_redirect_leaves_https():
    """A file requested by https is never received in the clear."""
    request = Request("https://publisher.test/weights.pth")
    redirect = _SafeRedirects()
    with pytest.raises(UserError, match=r"to http://elsewhere\.test/x, which is not https"):
        redirect.redirect_request(request, None, 302, "Found", {}, "http://elsewhere.test/x")
    followed = redirect.redirect_request(request, None, 302, "", {}, "https://elsewhere.test/x")
    assert followed.full_url == "https://elsewhere.test/x"
