"""Finds tokens in files: of `export`, of the API, and of the stores of the vendor's SDKs.

The content decides the format: JSON, MongoDB's Extended JSON (one document per line, or a list),
and PHP's session files. In all of them, a token is an object with an access token or a refresh
token, at any depth.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import json_documents, php, stored_dates, token_claims
from .token_claims import Claims

_MAX_DEPTH = 64

_MAX_SIZE = 64 << 20
"""The largest file of a folder that is read, in bytes."""

_ACCESS_KEYS = ("accessToken", "access_token")
_REFRESH_KEYS = ("refreshToken", "refresh_token")
_TOKEN_KEYS = (*_ACCESS_KEYS, *_REFRESH_KEYS)
_KIND_KEYS = ("userType", "user_type")
_COMPANY_KEYS = ("companyId", "company_id")
_LOCATION_KEYS = ("locationId", "location_id")
_EXPIRY_KEYS = ("expiresAt", "expires_at", "expireAt", "expire_at")
_LIFETIME_KEYS = ("expiresIn", "expires_in")
_UPDATED_KEYS = ("updatedAt", "updated_at")
_CREATED_KEYS = ("createdAt", "created_at")
_TIME_KEYS = (*_UPDATED_KEYS, *_CREATED_KEYS)
_KNOWN_KEYS = frozenset(
    (*_TOKEN_KEYS, *_KIND_KEYS, *_COMPANY_KEYS, *_LOCATION_KEYS, *_EXPIRY_KEYS, *_LIFETIME_KEYS)
)
_STORE_KEYS = ("_id", "__v", "applicationId", "application_id", "resourceId", "resource_id")

_COMPANY = "Company"
_LOCATION = "Location"
_KINDS = {"company": _COMPANY, "agency": _COMPANY, "location": _LOCATION, "account": _LOCATION}

_CLIENT_ID = re.compile(r"[0-9a-f]{24}-[0-9a-z]{1,40}")
_KEY_PARTS = re.compile(r"[^0-9A-Za-z-]+")


class Unreadable(Exception):
    """A file without tokens, or in an unknown format. The message quotes nothing of it."""


class NoTokens(Unreadable):
    """A file that is empty, or a PHP session in which no token is stored."""


class Damaged(Unreadable):
    """A file in a known format that is not complete or not valid."""


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
    is_lost: bool = False
    """Whether a token of the app may be missing because of the problem."""
    is_confirmed: bool = False
    """Whether the token itself names its owner."""
    is_inherited: bool = False
    """Whether only the objects or keys around the token name its owner."""
    named_by: object = None
    """The object or key that names the owner; the same one for all tokens that inherit it."""
    dates: Mapping[str, int] = field(default_factory=dict)
    """Of the token, ``issued`` and ``expires``; of its row, ``updated`` and ``created``."""

    @property
    def is_private_integration(self) -> bool:
        """Whether it is a private integration token, which is no JWT."""
        return str(_text(self.token or {}, *_ACCESS_KEYS)).startswith("pit-")


def owner_of(token: Mapping[str, Any]) -> str | None:
    """The company or location for which the library imports a token."""
    kind, company, location = _owners(token)
    if kind is None:
        return location or company
    return company if kind == _COMPANY else location


def _is_copy(entry: Entry, of: Entry) -> bool:
    """Whether an entry is the same token with the same owner."""
    return (
        entry.token is not None
        and of.token is not None
        and secret_of(entry) == secret_of(of)
        and owner_of(entry.token) in (owner_of(of.token), None)
    )


def secret_of(entry: Entry) -> tuple[str | None, str | None]:
    """The refresh token, or else the access token: two entries with the same one do not differ."""
    token = entry.token or {}
    refresh_token = _text(token, *_REFRESH_KEYS)
    return refresh_token, None if refresh_token else _text(token, *_ACCESS_KEYS)


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
                    problem = f"is larger than {_MAX_SIZE >> 20} MB"
                    yield Entry(path, None, problem=problem, is_lost=True)
                    continue
                with open(path, "rb") as file:
                    entries = list(read(path, file.read(_MAX_SIZE), app))
            except OSError as error:
                problem = f"cannot be read: {error.strerror}"
                yield Entry(path, None, problem=problem, is_lost=True)
            except NoTokens:
                pass
            except Unreadable as error:
                is_damaged = isinstance(error, Damaged)
                yield Entry(path, None, problem=str(error), is_lost=is_damaged)
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
                if error.position >= len(data.rstrip()):
                    raise Damaged(f"the PHP session is damaged: {json_documents.CUT}") from None
                raise Damaged(f"the PHP session is damaged at byte {error.position}") from None
            entries = list(finder.find(variables, name, _Context()))
            if not entries:
                raise NoTokens("no token is stored in the PHP session")
            yield from entries
            return
        if json_documents.SHELL.search(text):
            raise Unreadable("it is output of the mongo shell, not JSON; use mongoexport")
        if beginning:
            raise Unreadable("it is neither JSON nor a PHP session")
        raise NoTokens("it is empty")
    for line, document in json_documents.documents(text, _has_token_key):
        place = name if line is None else f"{name}, line {line}"
        if isinstance(document, json_documents.Broken):
            yield Entry(place, None, problem=document.problem, is_lost=document.is_lost)
            continue
        if document == []:
            # mongoexport of a collection that does not exist.
            raise NoTokens("it is an empty list")
        yield from finder.find_in_document(document, place)


def _has_token_key(text: str) -> bool:
    return any(f'"{key}"' in text for key in _TOKEN_KEYS)


def _decoded(data: bytes) -> str:
    """The text of a file. PowerShell's redirection writes UTF-16."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


class _Finder:
    """Finds the tokens in a value. Takes missing owners and apps from the enclosing objects."""

    def __init__(self, app: str) -> None:
        self._app = app

    def find_in_document(self, document: Any, place: str) -> Iterator[Entry]:
        """The tokens of a document: of a file, or of a line."""
        outside = _Context()
        if isinstance(document, list):
            yield from self._find_in_items(document, place, outside)
            return
        value = _plain(document)
        items = value.get("tokens") if isinstance(value, dict) else None
        if not isinstance(items, list) or _is_token(value):
            yield from self._find_or_refuse(value, place, outside)
            return
        inside = outside.in_object(value)
        yield from self._find_in_items(items, place, inside)
        others = {key: item for key, item in value.items() if key != "tokens"}
        yield from self._find_in_members(others, place, inside, 0)

    def _find_in_items(
        self, items: Sequence[Any], place: str, context: _Context
    ) -> Iterator[Entry]:
        for index, item in enumerate(items):
            yield from self._find_or_refuse(_plain(item), f"{place}, token {index}", context)

    def _find_or_refuse(self, value: Any, place: str, context: _Context) -> Iterator[Entry]:
        """The tokens of a value; one without any is passed on, to be refused by name."""
        if not isinstance(value, dict):
            yield Entry(place, None, problem="it is not an object")
            return
        yield from list(self.find(value, place, context)) or [self._entry(value, place, context)]

    def find(self, value: Any, place: str, context: _Context, depth: int = 0) -> Iterator[Entry]:
        """The tokens in a value.

        Args:
            value: The value.
            place: The file and the place in it, for messages.
            context: The owner and the app that the objects and keys around the value name.
            depth: How deeply it is nested.
        """
        if depth > _MAX_DEPTH:
            return
        if isinstance(value, str):
            # A column with the session as JSON, such as the storage in the PHP SDK's documentation.
            if value.lstrip()[:1] in ("{", "[") and _has_token_key(value):
                try:
                    yield from self.find(
                        _plain(json_documents.parse(value)), place, context, depth + 1
                    )
                except (ValueError, RecursionError):
                    problem = "it contains text that is not complete JSON"
                    yield Entry(place, None, context.owner, problem, is_lost=True)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.find(item, f"{place}[{index}]", context, depth + 1)
        elif isinstance(value, dict):
            inside = context.in_object(value)
            if not _is_token(value):
                yield from self._find_in_members(value, place, inside, depth)
                return
            # A company's token may contain its locations, and a token the API's answer to it.
            plain, entries = {}, []
            for key, item in value.items():
                inner = list(self._find_in_members({key: item}, place, inside, depth))
                entries += inner
                if not inner:
                    plain[key] = item
            entry = self._entry(plain, place, context, inside)
            yield entry
            yield from (each for each in entries if not _is_copy(each, entry))

    def _find_in_members(
        self, value: Mapping[str, Any], place: str, context: _Context, depth: int
    ) -> Iterator[Entry]:
        for key, item in value.items():
            inner = f"{place}, {_shown(key)}" if isinstance(item, (dict, list)) else place
            yield from self.find(item, inner, self._under_key(key, context), depth + 1)

    def _under_key(self, key: str, context: _Context) -> _Context:
        # The key of the SDKs in memory is APP:RESOURCE.
        first, _, last = key.rpartition(":")
        app = _app_id(first) if first else None
        if app == self._app or token_claims.APP_ID.fullmatch(app or ""):
            return replace(context, app=app).under(last)
        parts = _KEY_PARTS.split(key)
        app = next((_app_id(part) for part in parts if _CLIENT_ID.fullmatch(part)), context.app)
        owner = next((part for part in reversed(parts) if _is_id(part)), None)
        context = replace(context, app=app)
        return context.under(owner) if owner is not None else context

    def _entry(
        self,
        value: Mapping[str, Any],
        place: str,
        context: _Context,
        inside: _Context | None = None,
    ) -> Entry:
        inside = inside or context
        stored_under = _text(value, "resourceId", "resource_id")
        if stored_under:
            context = context.under(stored_under)
        value = {
            key: item for key, item in value.items() if not (key in _KNOWN_KEYS and _is_blank(item))
        }
        token = {key: item for key, item in value.items() if key not in _STORE_KEYS}
        is_stored = context.owner is not None or len(token) < len(value)
        for key in _TIME_KEYS:
            token.pop(key, None)
        claims = _claims(token)
        problem = self._other_app(value, context, claims)
        if problem is not None:
            return Entry(place, None, context.owner, problem)
        problem = (
            _unusable(token)
            or _unknown_expiry(value)
            or (
                _file_by_claims(token, context, claims)
                if claims is not None
                else _file_by_context(token, value, context)
            )
        )
        if problem is not None:
            return Entry(place, None, context.owner, problem, is_lost=True)
        dates = {**inside.dates, **_token_dates(value, claims)}
        _complete_expiry(token, value, is_stored)
        is_inherited = owner_of(token) not in (stored_under, *_owners(value)[1:])
        is_named_here = inside.named_by is not context.named_by
        return Entry(
            place,
            token,
            context.owner,
            is_confirmed=claims is not None,
            is_inherited=is_inherited,
            named_by=inside.named_by if is_inherited or is_named_here else object(),
            dates=dates,
        )

    def _other_app(
        self, value: Mapping[str, Any], context: _Context, claims: Claims | None
    ) -> str | None:
        """Why a token is not of the configured app."""
        app = _app(value) or context.app
        if claims is not None and claims.app is not None:
            app = claims.app
        if app is None or app == self._app:
            return None
        return f"it is a token of the app {app}, and the configured client id is of {self._app}"


@dataclass(frozen=True)
class _Context:
    """The owner and the app that the objects and keys around a value name.

    The nearest object or key that names a company, a location or another ID decides; only the
    company is inherited from objects around it.
    """

    app: str | None = None
    owner: str | None = None
    """The ID under which it is stored."""
    owner_may_be_foreign: bool = False
    """Whether this ID may be one of the program, in the form of the API's."""
    kind: str | None = None
    company: str | None = None
    location: str | None = None
    contradiction: str | None = None
    """Why the owner is unclear."""
    named_by: object = None
    """The object or key that names the owner."""
    dates: Mapping[str, int] = field(default_factory=dict)
    """The dates of the nearest object that has any."""

    def under(self, owner: str, may_be_foreign: bool = False) -> _Context:
        """The context of what is stored under an ID.

        The user type and the location of another owner do not apply to it.
        """
        inner = replace(self, owner=owner, owner_may_be_foreign=may_be_foreign, named_by=object())
        if owner == self.location:
            return replace(inner, kind=None if self.kind == _COMPANY else self.kind)
        if owner == self.company:
            kind = None if self.kind == _LOCATION else self.kind
            return replace(inner, kind=kind, location=None)
        contradiction = self.contradiction
        if self.location is not None:
            contradiction = f"it is stored under {owner} inside the location {self.location}"
        return replace(inner, kind=None, location=None, contradiction=contradiction)

    def in_object(self, value: Mapping[str, Any]) -> _Context:
        """The context of the members of an object."""
        company, location = (
            named if named is not None and _is_id(named) else None
            for named in (_text(value, *_COMPANY_KEYS), _text(value, *_LOCATION_KEYS))
        )
        inner = replace(self, app=_app(value) or self.app, dates=_row_dates(value) or self.dates)
        resource = _text(value, "resourceId", "resource_id")
        own_id = _own_id(value)
        if resource is not None:
            inner = inner.under(resource)
        elif own_id is not None and own_id not in (company, location) and location is None:
            inner = inner.under(own_id, may_be_foreign=True)
        if company is not None or location is not None:
            is_settled = location is not None or company == inner.owner
            inner = replace(
                inner,
                kind=None,
                company=company or inner.company,
                location=location,
                contradiction=None if is_settled else inner.contradiction,
                named_by=object(),
            )
        kind = _kind(value)
        if kind == _COMPANY and inner.company is None and inner.location is None:
            # The object is stored under the company's ID.
            inner = replace(inner, company=inner.owner)
        return inner if kind is None else replace(inner, kind=kind)


def _app_id(name: str) -> str:
    """The ID of the app that an app ID or client id names."""
    return name.partition("-")[0]


def _app(value: Mapping[str, Any]) -> str | None:
    """The ID of the app that an object names."""
    named = _text(value, "applicationId", "application_id")
    if named is None:
        # The program's own IDs may have these names.
        texts = (value.get(key) for key in ("clientId", "client_id", "appId", "app_id"))
        named = next((text for text in texts if _is_app(text)), None)
    return None if named is None else _app_id(named)


def _is_app(text: Any) -> bool:
    return isinstance(text, str) and bool(token_claims.APP_ID.fullmatch(_app_id(text)))


def _own_id(value: Mapping[str, Any]) -> str | None:
    """The ID of an object itself, if it has the form of the API's."""
    own_id = _text(value, "id", "_id")
    return own_id if own_id is not None and _is_id(own_id) else None


def _file_by_claims(token: dict[str, Any], context: _Context, claims: Claims) -> str | None:
    """Files a token under the owner that it names itself. Returns why not, if it cannot."""
    kind, company, location = _owners(token)
    named = company if claims.kind == _COMPANY else location
    if kind not in (None, claims.kind) or named not in (None, claims.owner):
        stated = f"of {named}" if kind in (None, claims.kind) else f"a {kind.lower()}'s"
        return (
            f"the token is of the {claims.kind.lower()} {claims.owner}, and the entry says that it "
            f"is {stated}"
        )
    token["userType"] = claims.kind
    token.pop("user_type", None)
    if claims.kind == _COMPANY:
        token["companyId"] = claims.owner
        for key in _LOCATION_KEYS:
            token.pop(key, None)
        return None
    token["locationId"] = claims.owner
    if company is None and context.company not in (None, claims.owner):
        token["companyId"] = context.company
    return None


def _file_by_context(
    token: dict[str, Any], value: Mapping[str, Any], context: _Context
) -> str | None:
    """Adds the owner of a token from its context. Returns why not, if it is unclear.

    Without it, a location's token that names its company would count as the company's.
    """
    kind, company, location = _owners(token)
    own_id = _own_id(value)
    if own_id not in (None, company, location, context.owner) and location is None:
        context = context.under(own_id or "", may_be_foreign=True)
    is_complete = location is not None or (kind == _COMPANY and company is not None)
    # A user type or location that belongs to another company does not apply.
    applies = company is None or context.company in (None, company)
    if kind is None and location is None and applies:
        kind = context.kind
    if company is None:
        company = context.company if context.company != location else None
    if location is None and kind != _COMPANY and applies:
        location = context.location
    owner = context.owner
    if not is_complete and context.contradiction is not None:
        return f"{context.contradiction}; {_ADD_OWNER}"
    if kind == _COMPANY and company is None and owner is not None:
        if owner in (location, context.location):
            return f"it is a company's token and stored under the location {owner}; add companyId"
        company = owner
    elif kind != _COMPANY and location is None and owner not in (None, company):
        if kind is None and company is not None and context.owner_may_be_foreign:
            return f"{owner} may be its location or an ID of the program; {_ADD_OWNER}"
        if kind or company:
            location = owner
    for names, known in (
        (_KIND_KEYS, kind), (_COMPANY_KEYS, company), (_LOCATION_KEYS, location),
    ):  # fmt: skip
        if known is not None and _text(token, *names) is None:
            token[names[0]] = known
    return None


_ADD_OWNER = "add userType, and companyId or locationId"


def _claims(token: Mapping[str, Any]) -> Claims | None:
    access_token, refresh_token = _text(token, *_ACCESS_KEYS), _text(token, *_REFRESH_KEYS)
    return token_claims.read(access_token) or token_claims.read(refresh_token)


def _owners(token: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    """The user type, company and location that a token names."""
    return _kind(token), _text(token, *_COMPANY_KEYS), _text(token, *_LOCATION_KEYS)


def _kind(value: Mapping[str, Any]) -> str | None:
    kind = _text(value, *_KIND_KEYS)
    return None if kind is None else _KINDS.get(kind.lower())


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


def _unknown_expiry(value: Mapping[str, Any]) -> str | None:
    """Why the expiry cannot be read."""
    key = next((key for key in _EXPIRY_KEYS if key in value), None)
    if key is None or stored_dates.milliseconds(value[key]) is not None:
        return None
    return f"{key} is neither a number nor a date in ISO 8601 or RFC 2822"


def _is_blank(value: Any) -> bool:
    """Whether a member has no value: then its other spelling counts."""
    return value is None or (isinstance(value, str) and not value.strip())


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
    """The first of the members that is a text and not blank."""
    for key in keys:
        text = value.get(key)
        if isinstance(text, str) and text.strip():
            return text
    return None


def _row_dates(value: Mapping[str, Any]) -> Mapping[str, int]:
    return _first_dates(value, updated=_UPDATED_KEYS, created=_CREATED_KEYS)


def _token_dates(value: Mapping[str, Any], claims: Claims | None) -> Mapping[str, int]:
    dates = _first_dates(value, expires=_EXPIRY_KEYS)
    if claims is None or claims.issued_at is None:
        return dates
    return {**dates, "issued": claims.issued_at}


def _first_dates(value: Mapping[str, Any], **kinds: Sequence[str]) -> Mapping[str, int]:
    """The first date of each kind that can be read, in milliseconds."""
    found = {
        kind: next(
            (moment for moment in map(stored_dates.milliseconds, map(value.get, keys)) if moment),
            None,
        )
        for kind, keys in kinds.items()
    }
    return {kind: moment for kind, moment in found.items() if moment is not None}


def _complete_expiry(token: dict[str, Any], value: Mapping[str, Any], is_stored: bool) -> None:
    """Replaces every form of the expiry by ``expiresAt`` in milliseconds."""
    known = next((value[key] for key in _EXPIRY_KEYS if key in value), None)
    if known is not None:
        for key in _EXPIRY_KEYS:
            token.pop(key, None)
        token["expiresAt"] = stored_dates.milliseconds(known)
        return
    lifetime = next((value[key] for key in _LIFETIME_KEYS if key in value), None)
    if lifetime is None:
        return
    saved_at = next(
        (
            moment
            for moment in (stored_dates.milliseconds(value.get(key)) for key in _TIME_KEYS)
            if moment
        ),
        None,
    )
    seconds = stored_dates.number(lifetime)
    if saved_at is not None and seconds is not None:
        token["expiresAt"] = saved_at + 1000 * seconds
    elif not is_stored or _text(token, *_REFRESH_KEYS) is None:
        return
    # The lifetime of a stored session began at an unknown time, not now.
    for key in _LIFETIME_KEYS:
        token.pop(key, None)


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
            return stored_dates.number(inner)
        if key == "$date":
            return stored_dates.milliseconds(_plain(inner, depth + 1))
        if key == "$oid":
            return inner
    return {key: _plain(item, depth + 1) for key, item in value.items()}
