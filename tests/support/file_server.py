"""Serve files on the loopback address, as publishers do."""

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Sends files by the last part of their address; supports ranges, and may end early.

    ``redirects`` sends a name elsewhere, ``states_versions`` adds ETags, and ``content_type`` is
    that of every file.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), FileHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/files/"
        self.files = {}
        self.redirects = {}
        self.asked = []
        self.starts = []
        self.cut_after = None
        self.states_versions = False
        self.content_type = None


class FileHandler(BaseHTTPRequestHandler):
    """Answers for the server."""

    def do_GET(self):
        """Send a file from the byte that is asked for."""
        name = self.path.rpartition("/")[2].partition("?")[0]
        self.server.asked.append(name)
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if name in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[name])
            self.end_headers()
            return None
        self.server.starts.append(start)
        if name not in self.server.files:
            return self.send_error(404)
        content = self.server.files[name]
        version = f'"{hashlib.sha256(content).hexdigest()}"'
        if self.headers.get("If-Range", version) != version:
            start = 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return None
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.server.states_versions:
            self.send_header("ETag", version)
        if self.server.content_type:
            self.send_header("Content-Type", self.server.content_type)
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after])
        return None

    def log_message(self, *_):
        """Say nothing."""
