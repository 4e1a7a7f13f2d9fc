"""Download one published file: resumed where it stopped, checked, and named only when complete."""

import fcntl
import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from rsa_pretrain.plumbing.atomic_files import make_folder, move_into_place
from rsa_pretrain.plumbing.errors import UserError

_TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 2**20
_NOTHING_BEYOND = 416  # the status if a file ends before the first requested byte
_NAME_A_MIRROR = "name a mirror with --url"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checksum:
    """Hash of a complete file, as its publisher states it."""

    algorithm: str
    """Name that ``hashlib`` knows, such as md5 or sha256."""
    digits: str
    """Its hexadecimal digits, or the first of them."""

    @classmethod
    def parse(cls, text: str) -> "Checksum":
        """Read ``ALGORITHM:DIGITS``."""
        return cls(*text.split(":"))

    def of(self, path: Path) -> str:
        """Return as many digits of a file's hash as the publisher states."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(
                file, lambda: hashlib.new(self.algorithm, usedforsecurity=False)
            )
        return digest.hexdigest()[: len(self.digits)]

    def __str__(self) -> str:
        """Return the algorithm's usual name."""
        return {"md5": "MD5", "sha256": "SHA-256"}.get(self.algorithm, self.algorithm)


@contextmanager
def downloads_into(folder: Path) -> Iterator[None]:
    """Let one process at a time download into a folder, which is created if missing.

    Raises:
        UserError: If the folder cannot be written to, or the block raises an ``OSError``.
    """
    try:
        make_folder(folder)
        with (folder / ".download.lock").open("ab") as lock:
            _wait_for(lock, folder)
            yield
    except OSError as error:
        raise UserError(
            f"cannot download into '{folder}': {error.strerror or error}; fix that and rerun the "
            "command to resume"
        ) from None


def download(url: str, path: Path, checksum: Checksum | None, mirror: str = _NAME_A_MIRROR) -> None:
    """Download a file, or check an existing one.

    It grows as ``NAME.part`` and gets its name once its checksum matches. A rest is appended only
    if the server says that the file is still the same one, or a checksum will tell.

    Args:
        url: Address of the file, http or https.
        path: File to write, in an existing folder.
        checksum: The publisher's; None if it states none.
        mirror: What to do if the address is dead, for the error.

    Raises:
        UserError: If the server, the connection or the content fails.
    """
    if path.exists():
        if checksum is not None and checksum.of(path) != checksum.digits:
            raise UserError(
                f"'{path}' is not the published file (its {checksum} is {checksum.of(path)}, "
                f"expected {checksum.digits}); move it away and rerun the command"
            )
        return
    part = path.with_name(f"{path.name}.part")
    _Transfer(url, part, checksum is not None, mirror).run()
    if checksum is not None and checksum.of(part) != checksum.digits:
        found = checksum.of(part)
        part.unlink()
        raise UserError(
            f"{url} gave a file whose {checksum} is {found}, expected {checksum.digits}; it is "
            f"removed. Rerun the command to download it from the beginning, or {mirror}"
        )
    move_into_place(part, path)


@dataclass(frozen=True)
class _Transfer:
    """Appends to a partial file the rest of the one at an address."""

    url: str
    part: Path
    has_checksum: bool
    mirror: str

    @property
    def _version(self) -> Path:
        """File with the server's name for the version that the partial file is of."""
        return self.part.with_name(f"{self.part.name}.version")

    def run(self) -> None:
        """Receive the rest of the file."""
        version = self._version.read_text() if self._version.exists() else ""
        done = self.part.stat().st_size if self.part.exists() else 0
        if not (version or self.has_checksum):
            done = 0
        response = self._request(done, version)
        if response is None:
            return
        with response:
            self._receive(response, done if response.status == 206 else 0)
        self._version.unlink(missing_ok=True)

    def _receive(self, response: HTTPResponse, done: int) -> None:
        from rsa_pretrain.plumbing.progress import progress_bar

        if response.headers.get_content_type() == "text/html":
            raise UserError(f"{self.url} is a web page, not a file; {self.mirror}")
        if not done:
            self._start_over(_version_of(response.headers))
        total = None if response.length is None else done + response.length
        if done:
            _log.info("resuming '%s' at %s bytes", self.part, f"{done:,}")
        with (
            self.part.open("ab" if done else "wb") as file,
            progress_bar(total, self.part.stem, "B", done) as bar,
        ):
            for chunk in self._chunks(response):
                file.write(chunk)
                bar.update(len(chunk))
        size = self.part.stat().st_size
        if total is not None and size < total:
            raise self._cut(f"after {size:,} of {total:,} bytes")

    def _start_over(self, version: str) -> None:
        # In this order: a kill in between never leaves a part beside another version's name.
        self.part.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)
        if version:
            self._version.write_text(version)

    def _request(self, done: int, version: str) -> HTTPResponse | None:
        """Request the file from a byte offset; None if it ends there."""
        if not self.url.startswith(("http://", "https://")):
            raise UserError(
                f"expected an address starting with http:// or https://, found '{self.url}'"
            )
        headers = {"User-Agent": "rsa-pretrain"}
        if done:
            headers |= {"Range": f"bytes={done}-"} | ({"If-Range": version} if version else {})
        try:
            opener = build_opener(_SafeRedirects)
            request = Request(self.url, headers=headers)
            response: HTTPResponse = opener.open(request, timeout=_TIMEOUT_SECONDS)
        except HTTPError as error:
            if error.code == _NOTHING_BEYOND and done:
                return self._after_the_end(done, error.headers)
            raise UserError(
                f"the server answers {error.code} {error.reason} to {self.url}; {self.mirror}"
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            raise UserError(
                f"cannot reach {self.url} ({getattr(error, 'reason', error)}); rerun the command, "
                f"or {self.mirror}"
            ) from None
        return response

    def _after_the_end(self, done: int, headers: Message) -> HTTPResponse | None:
        """Accept a partial file that is complete; request one of another length once more."""
        length = re.fullmatch(r"bytes \*/(\d+)", headers.get("Content-Range", ""))
        if self.has_checksum or (length is not None and int(length[1]) == done):
            return None
        return self._request(0, "")

    def _chunks(self, response: HTTPResponse) -> Iterator[bytes]:
        try:
            while chunk := response.read(_CHUNK_BYTES):
                yield chunk
        except (OSError, HTTPException) as error:
            raise self._cut(f"({error})") from None

    def _cut(self, how: str) -> UserError:
        return UserError(f"the connection was cut {how}; rerun the command to resume '{self.part}'")


class _SafeRedirects(HTTPRedirectHandler):
    """Follows redirects, but none from https to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if req.type == "https" and not newurl.startswith("https://"):
            raise UserError(f"{req.full_url} redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _version_of(headers: Message) -> str:
    """Return what names this version of a file in ``If-Range``; empty if nothing does."""
    tag = str(headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(headers.get("Last-Modified", ""))


def _wait_for(lock: IO[bytes], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.info("waiting for another download into '%s'", folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
