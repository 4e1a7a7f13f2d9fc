"""The server answers this machine's own page, and outlives whatever else is sent to it."""

import http.client
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.serve import server as server_module
from rsa_eval.serve.app import App
from rsa_eval.serve.server import ReportServer
from rsa_pretrain.plumbing.errors import UserError

Serve = Callable[..., ReportServer]
Get = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def server(serve: Serve, tmp_path: Path, write_log: Callable[..., None]) -> ReportServer:
    """A server of one run."""
    write_log(tmp_path / "run")
    return serve(tmp_path / "run")


@pytest.fixture
def is_well(server: ReportServer, get: Get, capfd: pytest.CaptureFixture[str]) -> Any:
    """A function that checks that the server still answers, and has printed nothing."""

    def check() -> None:
        assert get(server, "/state").status == 200
        assert capfd.readouterr().err == ""

    return check


def _send(server: ReportServer, text: str | bytes, *, ends: bool = True) -> bytes:
    """Send bytes as they are, and return whatever comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        received = b""
        try:
            connection.sendall(text if isinstance(text, bytes) else text.encode())
            if ends:
                connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65_536):
                received += more
        except TimeoutError:
            raise
        except OSError:  # refused before all of it was read
            pass
        return received


def _status(answer: bytes) -> int:
    return int(answer.split(maxsplit=2)[1])


def _request(host: str, path: str = "/state", *more: str, method: str = "GET") -> str:
    lines = [f"{method} {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *more]
    return "\r\n".join(lines) + "\r\nConnection: close\r\n\r\n"


def test_only_this_machine_is_listened_to(server: ReportServer) -> None:
    """The socket is bound to the loopback address."""
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
def test_names_of_this_machine_are_answered(server: ReportServer, name: str) -> None:
    """With the port that is served."""
    assert _status(_send(server, _request(f"{name}:{server.server_port}"))) == 200


@pytest.mark.parametrize("path", ["/", "/state", "/script.js", "/nothing"])
@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost"),
        *("127.0.0.1:{port}.evil.example", "evil.example@127.0.0.1:{port}", "127.0.0.2:{port}"),
        *("127.0.0.1:{port}\r\nHost: evil.example", "localhost.:{port}", "0.0.0.0:{port}"),
    ],
)
def test_another_host_is_refused(server: ReportServer, host: str, path: str) -> None:
    """A name that merely leads here, as with DNS rebinding, reads nothing."""
    answer = _send(server, _request(host.format(port=server.server_port), path))
    assert _status(answer) == 403
    assert b"the address is not that of this server" in answer
    assert b'"runs"' not in answer


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Origin", "http://127.0.0.1:{port}", 200),
        ("Origin", "http://evil.example", 403),
        ("Origin", "http://127.0.0.1:1", 403),
        ("Origin", "https://127.0.0.1:{port}", 403),
        ("Origin", "null", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
        ("Sec-Fetch-Site", "none", 200),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
    ],
)
def test_another_sites_page_gets_no_part(
    server: ReportServer, header: str, value: str, status: int
) -> None:
    """Its browser says where a request comes from; a link to the page itself may be followed."""
    host = f"127.0.0.1:{server.server_port}"
    line = f"{header}: {value.format(port=server.server_port)}"
    for path in ("/state", "/script.js"):
        assert _status(_send(server, _request(host, path, line))) == status
    of_the_page = 200 if header == "Sec-Fetch-Site" else status
    assert _status(_send(server, _request(host, "/", line))) == of_the_page


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"]
)
def test_other_methods_are_not_allowed(server: ReportServer, is_well: Any, method: str) -> None:
    """The answer names those that are."""
    answer = _send(server, _request(f"127.0.0.1:{server.server_port}", method=method))
    assert _status(answer) == 405
    assert b"\r\nAllow: GET, HEAD\r\n" in answer
    is_well()


def test_head_sends_the_headers_alone(server: ReportServer, get: Get) -> None:
    """They are those of GET."""
    whole, head = (get(server, "/style.css", method) for method in ("GET", "HEAD"))
    assert head.status == whole.status == 200
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]
    assert (head.read(), len(whole.read())) == (b"", int(whole.headers["Content-Length"]))


@pytest.mark.parametrize("path", ["/", "/state", "/script.js", "/nothing"])
def test_every_answer_has_the_headers_of_defence(server: ReportServer, get: Get, path: str) -> None:
    """Errors too: no guessing of types, no cache, no frame, nothing from elsewhere."""
    headers = get(server, path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    policy = [part.split() for part in headers["Content-Security-Policy"].split(";")]
    rules = {name: values for name, *values in policy}
    assert rules["default-src"] == rules["frame-ancestors"] == ["'none'"]
    assert rules["script-src"] == rules["connect-src"] == ["'self'"]
    assert "Access-Control-Allow-Origin" not in headers
    assert "Python" not in (headers["Server"] or "")


def test_an_unchanged_state_is_not_sent_again(server: ReportServer, get: Get) -> None:
    """A page that names the tag it has gets 304 and no content, until something changes."""
    first = get(server, "/state")
    assert first.read()
    again = get(server, "/state", If_None_Match=first.headers["ETag"])
    assert (again.status, again.read()) == (304, b"")
    assert get(server, "/state", If_None_Match='"other"').status == 200


def test_one_connection_serves_many_requests(server: ReportServer) -> None:
    """A polling page need not connect each time."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    sockets = set()
    for path in ("/", "/state", "/style.css", "/state"):
        connection.request("GET", path)
        assert connection.getresponse().read()
        sockets.add(connection.sock)
    assert len(sockets) == 1
    connection.close()


NONSENSE = {
    "nothing": "",
    "no line end": "GET / HTTP/1.1",
    "bytes": bytes(range(256)) * 20,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "one word": "GET\r\n\r\n",
    "four words": "GET / HTTP/1.1 more\r\n\r\n",
    "no such version": "GET / HTTP/9.9\r\n\r\n",
    "odd version": "GET / HTTP/1.1.1.1\r\n\r\n",
    "long number": f"GET / HTTP/1.{'1' * 5000}\r\n\r\n",
    "first version": "GET /state\r\n\r\n",
    "long line": f"GET /{'x' * 100_000} HTTP/1.1\r\nHost: a\r\n\r\n",
    "long header": f"GET / HTTP/1.1\r\nHost: {'x' * 100_000}\r\n\r\n",
    "many headers": "GET / HTTP/1.1\r\n" + "A: b\r\n" * 1000 + "\r\n",
    "no colon": "GET / HTTP/1.1\r\nHost\r\n\r\n",
    "a header of bytes": b"GET / HTTP/1.1\r\nHost: \xff\xfe\x00\r\n\r\n",
    "expectation": "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_refused_in_silence(
    server: ReportServer, is_well: Any, text: str | bytes
) -> None:
    """No answer, or an error that has the headers of defence; never a page."""
    answer = _send(server, text)
    if answer.startswith(b"HTTP/1."):
        assert 400 <= _status(answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")) < 600
        assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer
    assert b"<html" not in answer
    is_well()


def test_a_body_is_not_taken_for_a_request(server: ReportServer, is_well: Any) -> None:
    """A request within the body of another one is not answered."""
    host = f"127.0.0.1:{server.server_port}"
    inner = _request(host, "/style.css")
    outer = f"GET /state HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(inner)}\r\n\r\n"
    answer = _send(server, outer + inner)
    assert answer.count(b"HTTP/1.1 200") == 1
    is_well()


@pytest.mark.parametrize(
    "path",
    [
        *("/../../etc/passwd", "/picture/../../../etc/passwd", "/section/..%2f..%2fetc%2fpasswd"),
        *("/config/%00", "/curves/\x7f", "/record/\xe9", "//127.0.0.1/state", "/state/../state"),
        *("http://127.0.0.1/", "*", "/?x=1/../..", "/picture/" + "a" * 5000),
    ],
)
def test_odd_addresses_lead_nowhere(server: ReportServer, is_well: Any, path: str) -> None:
    """Addresses are names, never paths of files."""
    answer = _send(server, _request(f"127.0.0.1:{server.server_port}", path))
    assert _status(answer) == (200 if path.startswith("/?") else 404)
    assert b"root:" not in answer
    is_well()


def test_a_client_may_leave_at_any_time(server: ReportServer, is_well: Any) -> None:
    """Before its request, within it, and before the answer, also by a reset."""
    host = f"127.0.0.1:{server.server_port}"
    for text in ("", "GET /", _request(host, "/script.js") * 50):
        for linger in (0, 1):
            connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=20)
            # A lingering time of 0 resets the connection.
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1 - linger, 0)
            )
            connection.sendall(text.encode())
            connection.close()
    time.sleep(0.3)
    is_well()


def test_slow_clients_are_dropped(
    server: ReportServer, is_well: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not finish its line is closed after a while, and holds up nobody."""
    monkeypatch.setattr(server_module._Handler, "timeout", 0.3)
    started = time.monotonic()
    assert b" 200 " not in _send(server, "GET /sta", ends=False)
    assert time.monotonic() - started < 5
    is_well()


def test_too_many_connections_are_closed(server: ReportServer, is_well: Any) -> None:
    """Those beyond the limit end at once; when the others have left, the page is served again."""
    address = ("127.0.0.1", server.server_port)
    idle = [socket.create_connection(address, timeout=20) for _ in range(64)]
    time.sleep(0.3)
    with socket.create_connection(address, timeout=20) as one_more:
        assert one_more.recv(1) == b""
    for connection in idle:
        connection.close()
    time.sleep(0.3)
    is_well()


def test_a_taken_port_is_an_error(server: ReportServer, tmp_path: Path) -> None:
    """It names the port, and how to have a free one."""
    app = App([tmp_path])
    port = server.server_port
    with pytest.raises(UserError, match=rf"^port {port} is in use; choose another .* --port 0$"):
        ReportServer(app, port)
