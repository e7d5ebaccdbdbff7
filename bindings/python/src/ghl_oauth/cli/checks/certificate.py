"""A look at a server whose certificate is not trusted: who issued it, and the server's clock.

Nothing is sent but a request for the headers of ``/``, and nothing that arrives is trusted.
"""

from __future__ import annotations

import contextlib
from datetime import datetime

_COMMON_NAME = bytes.fromhex("550403")
_ORGANIZATION = bytes.fromhex("55040a")

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def look(host: str, port: int, timeout: float) -> tuple[str | None, str | None]:
    """The issuer of the server's certificate and the Date header; None for what is unknown."""
    import http.client

    try:
        import ssl
    except ImportError:  # Some builds of Python omit it.
        return None, None

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    issuer = date = None
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
        with contextlib.closing(connection):
            connection.connect()
            certificate = connection.sock.getpeercert(binary_form=True)
            if certificate:
                issuer = issuer_of(certificate)
            connection.request("HEAD", "/")
            date = connection.getresponse().headers.get("date")
    return issuer, date


def issuer_of(certificate: bytes) -> str | None:
    """The name of a certificate's issuer (RFC 5280, section 4.1); None if it cannot be read."""
    try:
        body = _content(_content(certificate))
        fields = list(_elements(body))
        # An explicit version comes first, unless it is the oldest; then number, algorithm, issuer.
        issuer = fields[3 if fields[0][0] == 0xA0 else 2][1]
        found = {}
        for _, attributes in _elements(issuer):
            for _, attribute in _elements(attributes):
                (_, kind), (_, value) = _elements(attribute)
                found[kind] = value.decode("utf-8", "replace")
    except (IndexError, ValueError):
        return None
    return found.get(_COMMON_NAME) or found.get(_ORGANIZATION)


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """The elements of a DER sequence: tags and contents."""
    found = []
    while data:
        tag, length, begin = data[0], data[1], 2
        if length & 0x80:
            begin += length & 0x7F
            length = int.from_bytes(data[2:begin], "big")
        if begin + length > len(data):
            raise ValueError("cut off")
        found.append((tag, data[begin : begin + length]))
        data = data[begin + length :]
    return found


def _content(data: bytes) -> bytes:
    return _elements(data)[0][1]


def seconds_of(date: str | None) -> float | None:
    """A Date header as seconds since 1970; None if it is malformed."""
    try:
        # The usual form, `Sun, 06 Nov 1994 08:49:37 GMT`, since the module below is slow to import.
        _, day, name, year, clock, zone = (date or "").split()
        if zone == "GMT":
            month = 1 + _MONTHS.index(name)
            return datetime.fromisoformat(f"{year}-{month:02}-{day}T{clock}+00:00").timestamp()
    except ValueError:
        pass
    from email.utils import parsedate_to_datetime

    try:
        parsed: datetime = parsedate_to_datetime(date or "")
        return parsed.timestamp()
    except (TypeError, ValueError, IndexError):
        return None
