"""Refuse requests that another web page, or another machine, causes this one to make.

A page of any site may let a browser ask 127.0.0.1. Under a name that leads here (DNS rebinding) it
could even read the answer, and is recognised by its ``Host``; under its own name by ``Origin`` and
``Sec-Fetch-Site``, which browsers set and scripts cannot.
"""

from email.message import Message

_NAMES = ("127.0.0.1", "localhost", "[::1]")
_HTTP_PORT = 80

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def why_refused(headers: Message, port: int, *, is_page: bool) -> str:
    """Return the reason for refusing a request; empty if it may be answered.

    Args:
        headers: Of the request.
        port: Of this server.
        is_page: Whether the page itself is asked for, to which other sites may link.
    """
    hosts = {f"{name}:{port}" for name in _NAMES}
    if port == _HTTP_PORT:
        hosts.update(_NAMES)
    asked = headers.get_all("Host", [])
    if len(asked) != 1 or asked[0].strip().lower() not in hosts:
        return "the address is not that of this server"
    origins = headers.get_all("Origin", [])
    if any(origin.strip().lower().removeprefix("http://") not in hosts for origin in origins):
        return "the request comes from another site"
    sites = headers.get_all("Sec-Fetch-Site", [])
    if not is_page and any(site.strip() not in ("same-origin", "none") for site in sites):
        return "the request comes from another site"
    return ""
