"""A server in a thread of the test's process."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rsa_eval.serve import app as app_module
from rsa_eval.serve.app import App
from rsa_eval.serve.server import ReportServer

Get = Callable[..., http.client.HTTPResponse]


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files with every request, and render with every change."""
    monkeypatch.setattr(app_module, "_SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(app_module, "_REST", 0.0)
    monkeypatch.setattr(app_module, "_SECONDS_BETWEEN_REPORTS", 0.0)


@pytest.fixture
def serve() -> Iterator[Callable[..., ReportServer]]:
    """A function that serves some paths until the test's end."""
    with ExitStack() as stack:

        def start(*paths: Path) -> ReportServer:
            server = stack.enter_context(ReportServer(App(paths), 0))
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start


@pytest.fixture
def get() -> Iterator[Get]:
    """A function that asks a server for an address, with a header as the page's scripts send it."""
    with ExitStack() as stack:

        def ask(
            server: ReportServer, path: str, method: str = "GET", **headers: str
        ) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
            stack.callback(connection.close)
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers={"Sec-Fetch-Site": "same-origin", **sent})
            return connection.getresponse()

        yield ask
