"""Reads PHP's serialization format and session files, without creating any object."""

from __future__ import annotations

import re
from typing import Any

_MAX_DEPTH = 64

_VALUE = rb"(?:N;|[abdisOCE]:)"
_NAME = rb"[^|\x00-\x1f]{1,200}\|"
_ENTRY = re.compile(rb"(?:!" + _NAME + rb")*" + _NAME + _VALUE)
_SERIALIZED = re.compile(rb"(?:a:\d+:\{|O:\d+:\")")


class MalformedData(ValueError):
    """The data is not serialized by PHP; `position` is the byte at which reading failed."""

    def __init__(self, position: int) -> None:
        super().__init__(f"invalid at byte {position}")
        self.position = position


def is_serialized(data: bytes) -> bool:
    """Whether the data begins like a PHP session file or a serialized array or object."""
    return bool(_SERIALIZED.match(data) or _ENTRY.match(data) or _is_binary(data))


def _is_binary(data: bytes) -> bool:
    """Whether the data begins like a session of the handler ``php_binary``."""
    length = data[0] if data else 0
    return 0 < length < 128 and bool(re.match(_VALUE, data[1 + length : 4 + length]))


def read_session(data: bytes) -> dict[str, Any]:
    """Reads a session file of any of PHP's handlers: php, php_serialize and php_binary.

    Raises:
        MalformedData: The data is incomplete, or not serialized by PHP.
    """
    if _SERIALIZED.match(data):
        value, _ = _read(data, 0, 0)
        return value if isinstance(value, dict) else {}
    variables: dict[str, Any] = {}
    is_text = bool(_ENTRY.match(data))
    position = 0
    end_of_data = len(data.rstrip(b"\r\n"))
    while position < end_of_data:
        if is_text:
            end = data.find(b"|", position)
            if end < 0:
                raise MalformedData(position)
            name, start = data[position:end], end + 1
            if name.startswith(b"!"):  # a variable without a value
                position = start
                continue
        else:
            start = position + 1 + data[position]
            name = data[position + 1 : start]
        variables[_text(name)], position = _read(data, start, 0)
    return variables


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Reads the value at a position. Returns it and the position after it."""
    kind = data[at : at + 1]
    if depth > _MAX_DEPTH or not kind:
        raise MalformedData(at)
    if data[at : at + 2] == b"N;":
        return None, at + 2
    if kind in b"bidRr":
        text, end = _until(data, at + 2, b";")
        return _scalar(kind, text, at), end
    if kind in b"sSE":
        return _string(data, at + 2)
    if kind == b"a":
        return _pairs(data, at + 2, depth)
    if kind in b"OC":
        name, position = _string(data, at + 2, end=b"")
        if data[position : position + 1] != b":":
            raise MalformedData(position)
        if kind == b"O":
            return _pairs(data, position + 1, depth)
        length, start = _until(data, position + 1, b":")
        end = start + 1 + _number(length, position)
        if data[start : start + 1] != b"{" or data[end : end + 1] != b"}":
            raise MalformedData(start)
        return {"class": name}, end + 1
    raise MalformedData(at)


def _pairs(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    """Reads the members of an array or object, after its type."""
    count, position = _until(data, at, b":")
    if data[position : position + 1] != b"{":
        raise MalformedData(position)
    position += 1
    members: dict[str, Any] = {}
    for _ in range(_number(count, at)):
        key, position = _read(data, position, depth + 1)
        # A private property is named "\0Class\0name", a protected one "\0*\0name".
        members[str(key).rpartition("\0")[2]], position = _read(data, position, depth + 1)
    if data[position : position + 1] != b"}":
        raise MalformedData(position)
    return members, position + 1


def _string(data: bytes, at: int, end: bytes = b";") -> tuple[str, int]:
    length, start = _until(data, at, b":")
    stop = start + 1 + _number(length, at)
    if stop + 1 + len(end) > len(data):
        raise MalformedData(len(data))
    if data[start : start + 1] != b'"' or data[stop : stop + 1 + len(end)] != b'"' + end:
        raise MalformedData(start)
    return _text(data[start + 1 : stop]), stop + 1 + len(end)


def _scalar(kind: bytes, text: bytes, at: int) -> Any:
    try:
        if kind == b"d":
            return float(text)
        number = int(text)
    except ValueError:
        raise MalformedData(at) from None
    # References (R, r) to other values of the file do not matter for tokens.
    return {b"b": bool(number), b"i": number}.get(kind)


def _until(data: bytes, at: int, mark: bytes) -> tuple[bytes, int]:
    end = data.find(mark, at, at + 64)
    if end < 0:
        raise MalformedData(at)
    return data[at:end], end + 1


def _number(text: bytes, at: int) -> int:
    if not text.isdigit():
        raise MalformedData(at)
    return int(text)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
