"""Serve files on the loopback address, as publishers do."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Sends files by the last part of their address; supports ranges, and may end early."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), FileHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/files/"
        self.files = {}
        self.asked = []
        self.starts = []
        self.cut_after = None


class FileHandler(BaseHTTPRequestHandler):
    """Answers for the server."""

    def do_GET(self):
        """Send a file from the byte that is asked for."""
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.server.starts.append(start)
        if name not in self.server.files:
            return self.send_error(404)
        body = self.server.files[name][start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after])

    def log_message(self, *_):
        """Say nothing."""
