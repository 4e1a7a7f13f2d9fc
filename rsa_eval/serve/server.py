"""Serve the page on this machine alone."""

import errno
import socketserver
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any

from rsa_eval.serve.app import App, Reply
from rsa_eval.serve.guard import SECURITY_HEADERS, why_refused
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import StopSignal

ADDRESS = "127.0.0.1"
_SECONDS_TO_NOTICE_A_SIGNAL = 0.25
_SECONDS_FOR_A_REQUEST = 10.0
_MOST_CONNECTIONS = 64


class ReportServer(ThreadingHTTPServer):
    """Answers from an ``App`` on 127.0.0.1, each connection in a thread.

    Args:
        app: What is served.
        port: Port; 0 takes a free one.

    Raises:
        UserError: If the port is in use, or may not be used.
    """

    daemon_threads = True
    request_queue_size = _MOST_CONNECTIONS
    timeout = _SECONDS_TO_NOTICE_A_SIGNAL

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                reason = f"port {port} is in use"
            elif error.errno == errno.EACCES:
                reason = f"port {port} is reserved for the system"
            else:
                raise
            raise UserError(
                f"{reason}; choose another with --port, or any free one with --port 0"
            ) from None

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def serve(self) -> int:
        """Answer until a signal asks to stop; return the exit code for that signal."""
        with self, StopSignal() as stop:
            while stop.received is None:
                self.handle_request()
        return stop.exit_code

    def server_bind(self) -> None:
        """Bind without asking for this machine's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or close one too many."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # such as of a system that has no thread left
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection's requests."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: socket | Any, client_address: Any) -> None:
        """Show defects, but not that a client has left."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "rsa-eval"
    sys_version = ""
    timeout = _SECONDS_FOR_A_REQUEST
    server: ReportServer

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body would be taken for the next request
        path = self.path.partition("?")[0]
        reason = why_refused(self.headers, self.server.server_port, is_page=path == "/")
        if reason:
            self.send_error(HTTPStatus.FORBIDDEN, explain=reason)
            return
        reply = self.server.app.answer(path)
        if reply is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif reply.tag and self.headers.get("If-None-Match") == f'"{reply.tag}"':
            self._send(HTTPStatus.NOT_MODIFIED, Reply(reply.kind, b"", reply.tag))
        else:
            self._send(HTTPStatus.OK, reply)

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        status = HTTPStatus(code)
        # Of an unknown method, that is of any but GET and HEAD.
        if status == HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self.close_connection = True
        text = f"{status.value} {status.phrase}" + (f": {explain}" if explain else "")
        self._send(status, Reply("text/plain; charset=utf-8", f"{text}\n".encode()))

    def _send(self, status: HTTPStatus, reply: Reply) -> None:
        self.send_response(status)
        self.send_header("Content-Type", reply.kind)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(reply.content)))
        if reply.tag:
            self.send_header("ETag", f'"{reply.tag}"')
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in SECURITY_HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)

    def log_message(self, *_: Any) -> None:
        """Say nothing: a page asks every other second."""
