"""Finds tokens in files: of `export`, of the API, and of the stores of the vendor's SDKs.

The content decides the format: JSON, MongoDB's Extended JSON (one document per line, or a list),
and PHP's session files. In all of them, a token is an object with an access token or a refresh
token, at any depth.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import php

_MAX_DEPTH = 64

_MAX_SIZE = 64 << 20
"""The largest file of a folder that is read, in bytes."""

_TOKEN_KEYS = ("accessToken", "access_token", "refreshToken", "refresh_token")
_EXPIRY_KEYS = ("expiresAt", "expires_at", "expireAt", "expire_at")
_TIME_KEYS = ("updatedAt", "updated_at", "createdAt", "created_at")
_STORE_KEYS = ("_id", "__v", "applicationId", "application_id", "resourceId", "resource_id")

_NOTHING: Mapping[str, str] = {}

_APP_ID = re.compile(r"[0-9a-f]{24}")
_SHELL = re.compile(r"\b(?:ObjectId|ISODate|NumberLong|Long)\(")
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?", re.ASCII
)


class Unreadable(Exception):
    """A file without tokens, or in an unknown format. The message quotes nothing of it."""


class NoTokens(Unreadable):
    """A file that is empty, or a PHP session in which no token is stored."""


@dataclass(frozen=True)
class Entry:
    """A token of a file, or a part of the file that is no token."""

    source: str
    """The file and the place in it."""
    token: dict[str, Any] | None
    """The token in the form that the library imports, or None."""
    resource_id: str | None = None
    """The company or location under which the file stores the token, if it says so."""
    problem: str | None = None
    """Why there is no token."""


def read_folder(folder: str, app: str) -> Iterator[Entry]:
    """Reads all files of a folder, such as PHP's ``session.save_path``.

    Files without tokens are ignored, since a folder of sessions contains many. What is not a
    regular file, or too large, is reported and not read.

    Raises:
        OSError: The folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            try:
                found = os.stat(path)
                if not stat.S_ISREG(found.st_mode):
                    # A pipe or a device may have no end.
                    yield Entry(path, None, problem="is not a regular file")
                    continue
                if found.st_size > _MAX_SIZE:
                    yield Entry(path, None, problem=f"is larger than {_MAX_SIZE >> 20} MB")
                    continue
                with open(path, "rb") as file:
                    entries = list(read(path, file.read(_MAX_SIZE), app))
            except OSError as error:
                yield Entry(path, None, problem=f"cannot be read: {error.strerror}")
            except NoTokens:
                pass
            except Unreadable as error:
                yield Entry(path, None, problem=str(error))
            else:
                yield from (entry for entry in entries if entry.problem or _is_token(entry.token))


def read(name: str, data: bytes, app: str) -> Iterator[Entry]:
    """Reads the content of a file.

    Args:
        name: The file's name, for messages.
        data: Its content.
        app: The ID of the app, with which the client id begins. Tokens of other apps are refused.

    Raises:
        Unreadable: The format is unknown.
    """
    finder = _Finder(app)
    text = _decoded(data)
    beginning = text.lstrip()[:1]
    if beginning not in ("{", "["):
        if php.is_serialized(data):
            try:
                variables = php.read_session(data)
            except php.MalformedData as error:
                raise Unreadable(f"the PHP session is damaged at byte {error.position}") from None
            entries = list(finder.find(variables, name))
            if not entries:
                raise NoTokens("no token is stored in the PHP session")
            yield from entries
            return
        if _SHELL.search(text):
            raise Unreadable("it is output of the mongo shell, not JSON; use mongoexport")
        if beginning:
            raise Unreadable("it is neither JSON nor a PHP session")
        raise NoTokens("it is empty")
    for line, document in _documents(text):
        place = name if line is None else f"{name}, line {line}"
        if isinstance(document, _Broken):
            yield Entry(place, None, problem=document.problem)
            continue
        if document == []:
            # mongoexport of a collection that does not exist.
            raise NoTokens("it is an empty list")
        items = document.get("tokens") if isinstance(document, dict) else document
        if isinstance(items, list):
            for index, item in enumerate(items):
                yield from finder.find_in(item, f"{place}, token {index}")
        else:
            yield from finder.find_in(document, place)


class _Broken:
    """A part of a file that is no JSON."""

    def __init__(self, problem: str) -> None:
        self.problem = problem


def _documents(text: str) -> Iterator[tuple[int | None, Any]]:
    """The JSON documents of a text, with their lines; None if the text is a single one.

    The documents may be pretty-printed, and may be the items of a list of which a part is damaged.
    After a damaged one, reading continues at the next line that begins with an object.
    """
    try:
        yield None, _parse(text)
        return
    except (ValueError, RecursionError):
        pass
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    position = line = 0
    counted = 0
    while True:
        position = _BETWEEN.match(text, position).end()  # type: ignore[union-attr]
        if position == len(text):
            return
        line += text.count("\n", counted, position)
        counted = position
        try:
            document, position = decoder.raw_decode(text, position)
            if not isinstance(document, dict):
                document = _Broken("it is not an object")
        except RecursionError:
            document, position = _Broken("it is nested too deeply"), _resume(text, position)
        except ValueError:
            # Without the decoder's message, which may quote a token.
            shell = _SHELL.search(text, position, text.find("\n", position) % (len(text) + 1))
            problem = (
                "it is output of the mongo shell; use mongoexport" if shell else "invalid JSON"
            )
            document, position = _Broken(problem), _resume(text, position)
        yield 1 + line, document


_BETWEEN = re.compile(r"[\s,\[\]]*")
_NEXT = re.compile(r"\n[\s,\[]*(?=\{)")


def _resume(text: str, position: int) -> int:
    found = _NEXT.search(text, position)
    return found.end() if found else len(text)


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _decoded(data: bytes) -> str:
    """The text of a file. PowerShell's redirection writes UTF-16."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


class _Finder:
    """Finds the tokens in a value. Takes missing owners and apps from the enclosing objects."""

    def __init__(self, app: str) -> None:
        self._app = app

    def find_in(self, value: Any, place: str) -> Iterator[Entry]:
        """The tokens of a document; a document without any is passed on, to be refused by name."""
        if not isinstance(value, dict):
            yield Entry(place, None, problem="it is not an object")
            return
        value = _plain(value)
        yield from list(self.find(value, place)) or [self._entry(value, place, None, None, {})]

    def find(
        self,
        value: Any,
        place: str,
        owner: str | None = None,
        app: str | None = None,
        around: Mapping[str, str] = _NOTHING,
        depth: int = 0,
    ) -> Iterator[Entry]:
        """The tokens in a value that is stored for this owner.

        Args:
            value: The value.
            place: The file and the place in it, for messages.
            owner: The ID under which it is stored.
            app: The app for which it is stored.
            around: ``userType``, ``companyId`` and ``locationId`` of the enclosing objects.
            depth: How deeply it is nested.
        """
        if depth > _MAX_DEPTH:
            return
        if isinstance(value, str):
            # A column with the session as JSON, such as the storage in the PHP SDK's documentation.
            if value[:1] == "{" and "oken" in value:
                try:
                    plain = _plain(_parse(value))
                    yield from self.find(plain, place, owner, app, around, depth + 1)
                except (ValueError, RecursionError):
                    yield Entry(place, None, owner, "it contains text that is not complete JSON")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.find(item, f"{place}[{index}]", owner, app, around, depth + 1)
        elif _is_token(value):
            yield self._entry(value, place, owner, app, around)
        elif isinstance(value, dict):
            named = _text(value, "resourceId", "resource_id")
            app = _text(value, "applicationId", "application_id") or app
            around = _owner_around(around, value)
            for key, item in value.items():
                key_app, key_owner = self._key(key)
                inner = f"{place}, {_shown(key)}" if isinstance(item, (dict, list)) else place
                yield from self.find(
                    item, inner, named or key_owner or owner, key_app or app, around, depth + 1
                )

    def _key(self, key: str) -> tuple[str | None, str | None]:
        """The app and the owner that a key names."""
        first, _, last = key.rpartition(":")
        # The key of the SDKs in memory is APP:RESOURCE.
        if first and (first == self._app or _APP_ID.fullmatch(first)):
            return first, last
        return None, last if _is_id(last) else None

    def _entry(
        self,
        value: Mapping[str, Any],
        place: str,
        owner: str | None,
        app: str | None,
        around: Mapping[str, str],
    ) -> Entry:
        owner = _text(value, "resourceId", "resource_id") or owner
        app = _text(value, "applicationId", "application_id") or app
        if app and app != self._app:
            return Entry(
                place,
                None,
                owner,
                f"it is a token of the app {app}, and the configured client id is of {self._app}",
            )
        token = {key: item for key, item in value.items() if key not in _STORE_KEYS}
        is_stored = owner is not None or len(token) < len(value)
        for key in _TIME_KEYS:
            token.pop(key, None)
        problem = _unusable(token)
        if problem is not None:
            return Entry(place, None, owner, problem)
        _complete_from_around(token, around)
        _complete_owner(token, owner)
        _complete_expiry(token, value, is_stored)
        return Entry(place, token, owner)


def _unusable(value: Any) -> str | None:
    """Why a value cannot be passed on as JSON; None if it can."""
    if isinstance(value, float) and not math.isfinite(value):
        return "it contains a number that is infinite or not a number"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "it contains text that is not valid Unicode"
    if isinstance(value, dict):
        return _unusable([*value, *value.values()])
    if isinstance(value, list):
        return next((problem for problem in map(_unusable, value) if problem), None)
    return None


def _is_id(text: str) -> bool:
    """Whether a key is an ID of the API: 20 letters and digits, unlike a name in camelCase."""
    return (
        len(text) == 20
        and text.isascii()
        and text.isalnum()
        and sum(not character.islower() for character in text) >= 5
    )


def _shown(key: str) -> str:
    """A key for a message: not a long one, since that may be a secret."""
    return key if len(key) <= 64 else "…"


def _is_token(value: Any) -> bool:
    return isinstance(value, dict) and _text(value, *_TOKEN_KEYS) is not None


def _text(value: Mapping[str, Any], *keys: str) -> str | None:
    """The first of the members that is a text and not empty."""
    for key in keys:
        text = value.get(key)
        if isinstance(text, str) and text:
            return text
    return None


def _owner_around(around: Mapping[str, str], value: Mapping[str, Any]) -> Mapping[str, str]:
    """The user type, company and location that the objects around a token name.

    The nearest object that names a company or location decides; only the company is inherited from
    objects around it.
    """
    kind = _text(value, "userType", "user_type")
    found = {"userType": kind} if kind in ("Company", "Location") else {}
    ids = {}
    for name, older in (("companyId", "company_id"), ("locationId", "location_id")):
        named = _text(value, name, older)
        if named is not None and _is_id(named):
            ids[name] = named
    if ids:
        around = {name: around[name] for name in ("companyId",) if name in around}
    return {**around, **found, **ids}


def _complete_from_around(token: dict[str, Any], around: Mapping[str, str]) -> None:
    """Adds the owner that the row names in which the token is stored.

    Without it, a location's token that names its company would count as the company's.
    """
    for name, older in (("userType", "user_type"), ("companyId", "company_id")):
        if name in around and _text(token, name, older) is None:
            token[name] = around[name]
    kind = _text(token, "userType", "user_type")
    if (
        "locationId" in around
        and kind != "Company"
        and _text(token, "locationId", "location_id") is None
    ):
        token["locationId"] = around["locationId"]


def _complete_owner(token: dict[str, Any], owner: str | None) -> None:
    """Adds the ID under which a session is stored, if it says what kind of ID that is."""
    if owner is None:
        return
    kind = _text(token, "userType", "user_type")
    company = _text(token, "companyId", "company_id")
    location = _text(token, "locationId", "location_id")
    if kind == "Company" and company is None:
        token["companyId"] = owner
    elif kind != "Company" and location is None and company != owner and (kind or company):
        token["locationId"] = owner


def _complete_expiry(token: dict[str, Any], value: Mapping[str, Any], is_stored: bool) -> None:
    """Replaces every form of the expiry by ``expiresAt`` in milliseconds."""
    known = next((value[key] for key in _EXPIRY_KEYS if value.get(key) is not None), None)
    if known is not None:
        moment = _milliseconds(known)
        if moment is not None:
            for key in _EXPIRY_KEYS:
                token.pop(key, None)
            token["expiresAt"] = moment
        return
    lifetime = next(
        (value[key] for key in ("expiresIn", "expires_in") if value.get(key) is not None), None
    )
    if lifetime is None:
        return
    saved_at = next(
        (moment for moment in (_milliseconds(value.get(key)) for key in _TIME_KEYS) if moment), None
    )
    seconds = _number(lifetime)
    if saved_at is not None and seconds is not None:
        token["expiresAt"] = saved_at + 1000 * seconds
    elif not is_stored or _text(token, "refreshToken", "refresh_token") is None:
        return
    # The lifetime of a stored session began at an unknown time, not now.
    for key in ("expiresIn", "expires_in"):
        token.pop(key, None)


def _number(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _milliseconds(value: Any) -> int | None:
    """A time in milliseconds since the epoch, from a number, an ISO date or PHP's DateTime."""
    if isinstance(value, dict):
        if "milliseconds" in value:  # MongoDB\\BSON\\UTCDateTime
            return _number(value["milliseconds"])
        return _milliseconds(_php_date(value))
    if isinstance(value, str):
        found = _ISO.fullmatch(value.strip())
        if found:
            day, clock, fraction, zone = found.groups()
            zone = "+00:00" if zone in (None, "Z") else zone
            zone = zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
            try:
                moment = datetime.fromisoformat(f"{day}T{clock}{zone}")
            except ValueError:
                return None
            return round(moment.timestamp()) * 1000 + int((fraction or "0").ljust(3, "0")[:3])
    number = _number(value)
    # Before 1973 in milliseconds: it is in seconds.
    return 1000 * number if number is not None and 0 < number < 100_000_000_000 else number


def _php_date(value: Mapping[str, Any]) -> str | None:
    """The text of PHP's DateTime, if its time zone needs no database of zones."""
    date, zone = value.get("date"), value.get("timezone")
    if not isinstance(date, str) or not isinstance(zone, str):
        return None
    if zone in ("UTC", "Z", "GMT"):
        return date + "Z"
    return date + zone if zone[:1] in ("+", "-") else None


def _plain(value: Any, depth: int = 0) -> Any:
    """Replaces the types of MongoDB's Extended JSON by plain values."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # mongoexport writes 1.7E+12 for the SDK's expiry
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, inner), *_ = value.items()
        if key in ("$numberLong", "$numberInt", "$numberDouble", "$numberDecimal"):
            return _number(inner)
        if key == "$date":
            return _milliseconds(_plain(inner, depth + 1))
        if key == "$oid":
            return inner
    return {key: _plain(item, depth + 1) for key, item in value.items()}
