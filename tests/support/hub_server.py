"""Serve the part of the Hugging Face hub's protocol that pulls and pushes need, on loopback."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_a_test"


class HubServer(ThreadingHTTPServer):
    """Keeps repositories in memory; files that end in .safetensors are stored as large ones."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories = {}
        self.gated = set()
        self.received = {}
        self.private = {}

    def commit(self, repository, files):
        """Add files to a repository, in a new commit; return its name."""
        before = self.repositories.setdefault(repository, {"main": "", "commits": {"": {}}})
        tree = before["commits"][before["main"]] | files
        name = hashlib.sha1(repr(sorted(tree.items())).encode()).hexdigest()
        before["commits"][name] = tree
        before["main"] = name
        return name


class HubHandler(BaseHTTPRequestHandler):
    """Answers for the hub."""

    def do_HEAD(self):
        """Describe a file."""
        self._file(with_body=False)

    def do_GET(self):
        """Send a file, or describe a commit."""
        if not self.path.startswith("/api/models/"):
            return self._file(with_body=True)
        repository, _, revision = self.path.removeprefix("/api/models/").partition("/revision/")
        found = self._commit(repository, revision or "main")
        if found is None:
            return self._refuse(404, "RepoNotFound")
        files = self.server.repositories[repository]["commits"][found]
        siblings = [{"rfilename": name} for name in files]
        self._send({"id": repository, "sha": found, "siblings": siblings})

    def do_PUT(self):
        """Take a large file."""
        self.server.received[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, b"")

    def do_POST(self):
        """Create a repository, or take a commit in its three steps."""
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, None)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repository = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if repository not in self.server.repositories:
                self.server.private[repository] = (
                    asked.get("private") is True or asked.get("visibility") == "private"
                )
                self.server.commit(repository, {})
            return self._send({"url": f"{self.server.url}/{repository}", "name": repository})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
            return self._send(
                {
                    "files": [
                        {"path": name, "uploadMode": mode, "shouldIgnore": False}
                        for name, mode in zip(names, modes, strict=True)
                    ]
                }
            )
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                entry
                | {"actions": {"upload": {"href": f"{self.server.url}/objects/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            return self._send({"transfer": "basic", "objects": objects})
        if self.path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        files = {}
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.received[value["oid"]]
        name = self.server.commit(repository, files)
        url = f"{self.server.url}/{repository}/commit/{name}"
        self._send({"success": True, "commitOid": name, "commitUrl": url})

    def _commit(self, repository, revision):
        known = self.server.repositories.get(repository)
        if known is None:
            return None
        return known["main"] if revision == "main" else revision

    def _file(self, with_body):
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        found = self._commit(repository, revision)
        if found is None:
            return self._refuse(401, "RepoNotFound")
        if repository in self.server.gated:
            return self._refuse(403, "GatedRepo")
        files = self.server.repositories[repository]["commits"].get(found)
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        if name not in files:
            return self._refuse(404, "EntryNotFound", found)
        content = files[name]
        large = name.endswith(".safetensors")
        digest = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
        headers = {"X-Repo-Commit": found, "ETag": f'"{digest}"'}
        self._answer(200, content, headers, with_body)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, tree):
        self._answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status, code, commit=None):
        headers = {"X-Error-Code": code} if code else {}
        self._answer(status, b"", headers | ({"X-Repo-Commit": commit} if commit else {}))

    def _answer(self, status, content, headers=None, with_body=True):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing."""
