"""Finds and reads the configuration file and the client secret."""

from __future__ import annotations

import json
import os
import stat
from functools import partial

from .errors import ConfigError

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PATH_VARIABLE = "GHL_OAUTH_CONFIG"
SECRET_VARIABLE = "GHL_OAUTH_CLIENT_SECRET"

_BASE_URL = "https://services.leadconnectorhq.com"

_EXAMPLE = (
    '{"clientId": "…", "clientSecretFile": "secret.txt", '
    '"redirectUri": "https://…", "scopes": ["…"]}'
)


class Configuration:
    """The configuration of a client."""

    def __init__(
        self, path: str, document: Mapping[str, Any], secret_from: str, warnings: tuple[str, ...]
    ) -> None:
        self.path = path
        self.document = document
        """The library's configuration, with absolute paths."""
        self.secret_from = secret_from
        """The source of the client secret, for messages."""
        self.warnings = warnings

    def with_document(self, document: Mapping[str, Any]) -> Configuration:
        """A copy with another document."""
        return Configuration(self.path, document, self.secret_from, self.warnings)

    @property
    def store_path(self) -> str | None:
        """The store's file; None if the store has no file."""
        store = self.document["store"]
        path = store.get("path") if isinstance(store, dict) else None
        if not isinstance(path, str):
            return None
        # The folder before a `..` may be a link.
        return path if ".." in path else os.path.normpath(path)

    @property
    def store_kind(self) -> str:
        """``"sqlite"``, ``"memory"`` and so on."""
        store = self.document["store"]
        return str(store.get("kind")) if isinstance(store, dict) else "?"

    @property
    def address(self) -> tuple[str, int]:
        """The API's host and port."""
        # By hand, because `urllib.parse` is slow to import. The library has accepted the URL.
        scheme, _, rest = str(self.document.get("baseUrl") or _BASE_URL).partition("://")
        authority = rest.partition("/")[0]
        host, _, port = authority.rpartition(":")
        if not port.isdecimal():  # no port, but a name or the end of an IPv6 address
            host, port = authority, "80" if scheme.lower() == "http" else "443"
        return host.strip("[]").lower(), int(port)

    @property
    def server(self) -> str:
        """The API's host and port, and the proxy before it, for messages."""
        host, port = self.address
        server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{server} through the proxy {self.proxy}" if self.proxy else server

    @property
    def proxy(self) -> str | None:
        """The proxy's host and port, without its password; None if no proxy is configured."""
        http = self.document.get("http")
        url = http.get("proxy") if isinstance(http, dict) else None
        return str(url).rpartition("@")[2].rpartition("//")[2].rstrip("/") if url else None


def place(option: str | os.PathLike[str] | None) -> str:
    """The path from the option, the environment variable or the default, in this order.

    Raises:
        ConfigError: The user has no home folder, as in some containers.
    """
    named = option or os.environ.get(PATH_VARIABLE)
    if named:
        return os.fspath(named)
    base = os.environ.get("XDG_CONFIG_HOME")
    if not base:
        home = os.path.expanduser("~")
        if not os.path.isabs(home):
            raise _unusable(
                "the configuration has no default place, since this user has no home folder",
                f"set --config or {PATH_VARIABLE}",
            )
        base = os.path.join(home, ".config")
    return os.path.join(base, "ghl-oauth", "config.json")


def read(option: str | os.PathLike[str] | None) -> Configuration:
    """Reads the configuration.

    Args:
        option: A path, such as the value of ``--config``; or None.

    Raises:
        ConfigError: The configuration is missing or invalid.
    """
    path = place(option)
    try:
        text = _text_of(path)
    except FileNotFoundError:
        elsewhere = "" if option else f", or set --config or {PATH_VARIABLE}"
        raise _unusable(
            f"the configuration {path} does not exist",
            f"create it with `ghl-oauth init`{elsewhere}",
        ) from None
    except (OSError, ValueError) as error:
        raise _unusable(
            f"the configuration {path} cannot be read: {_reason(error)}", None
        ) from None
    try:
        document = json.loads(
            without_comments(text),
            parse_constant=_refuse_constant,
            object_pairs_hook=partial(_object, path),
        )
    except (ValueError, RecursionError) as error:
        # Only the position: the decoder's message may quote the secret.
        where = (
            f"line {error.lineno}, column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else "the file"
        )
        raise _unusable(f"the configuration {path} is not JSON", f"check {where}") from None
    if not isinstance(document, dict):
        raise _unusable(
            f"the configuration {path} is not a JSON object",
            f"write an object, for example {_EXAMPLE}",
        )

    if str(document.get("clientId", "")).startswith("<"):
        raise _unusable(
            f"the configuration {path} still has a placeholder",
            "replace the texts in angle brackets with those of the developer portal",
            "clientId",
        )
    folder = os.path.dirname(os.path.realpath(path))
    warnings = []
    document.setdefault("store", {"kind": "sqlite", "path": "tokens.db"})
    for section, key in (
        ("store", "path"),
        ("store", "encryptionKeysPath"),
        ("store", "caBundlePath"),
        ("http", "caBundlePath"),
    ):
        part = document.get(section)
        if not isinstance(part, dict):
            continue
        value = part.get(key)
        # The library rejects SQLite's special names, which are no paths.
        if isinstance(value, str) and value and value != ":memory:" and value[:5] != "file:":
            part[key] = _complete(value, folder, f"{section}.{key}")

    secret_from = path
    store = document["store"] if isinstance(document["store"], dict) else {}
    if document.get("clientSecret") is not None or store.get("url") or store.get("encryptionKeys"):
        warnings += _open_to_others(path)
    # Compose files set variables without a value to the empty string; the value of a Kubernetes
    # secret often ends with a line break.
    from_environment = os.environ.get(SECRET_VARIABLE, "").strip()
    secret_file = document.pop("clientSecretFile", None)
    if secret_file is not None:
        if not isinstance(secret_file, str):
            raise _unusable(
                f"clientSecretFile in {path} is not a string",
                "set it to a path",
                "clientSecretFile",
            )
        secret_path = _complete(secret_file, folder, "clientSecretFile")
        secret_from = secret_path
        if not from_environment:
            try:
                document["clientSecret"] = _text_of(secret_path).strip()
            except (OSError, ValueError) as error:
                raise _unusable(
                    f"the client secret cannot be read from {secret_path}: {_reason(error)}",
                    f"check clientSecretFile in {path}; a relative path starts at the "
                    "configuration's folder",
                    "clientSecretFile",
                ) from None
            if not document["clientSecret"]:
                raise _unusable(
                    f"the file {secret_path} is empty",
                    "put the client secret into it, from the client keys in the developer portal",
                    "clientSecretFile",
                )
            warnings += _open_to_others(secret_path)
    if from_environment:
        document["clientSecret"] = from_environment
        secret_from = f"the environment variable {SECRET_VARIABLE}"
    if document.get("clientSecret") is None:
        raise _unusable(
            "the client secret is missing",
            f"set {SECRET_VARIABLE}, or set clientSecretFile or clientSecret in {path}",
            "clientSecret",
        )
    return Configuration(path, document, secret_from, tuple(warnings))


def without_comments(text: str) -> str:
    """Blanks the lines that begin with ``//``; the others keep their numbers."""
    return "\n".join("" if line.lstrip().startswith("//") else line for line in text.split("\n"))


def _object(path: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Of a repeated key, all values but the last would be lost."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _unusable(
                f"the configuration {path} has the key {json.dumps(key)} twice in one object",
                "remove one of the two",
                key,
            )
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _text_of(path: str) -> str:
    # Editors on Windows begin a file with a byte order mark.
    with open(path, encoding="utf-8-sig") as file:
        return file.read()


def _complete(value: str, folder: str, parameter: str) -> str:
    """Resolves a relative path against the configuration's folder, not the working directory."""
    try:
        is_valid = b"\0" not in value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        is_valid = False
    if not is_valid:
        raise _unusable(
            f"{parameter} is not a path: it contains a character that no path can contain",
            "remove the character, for instance \\u0000",
            parameter,
        )
    expanded = os.path.expanduser(value)
    if expanded == "~" or expanded.startswith("~/"):
        raise _unusable(
            f"{parameter} begins with ~, but this user has no home folder",
            "write an absolute path",
            parameter,
        )
    return os.path.join(folder, expanded)


def _open_to_others(path: str) -> list[str]:
    found = os.stat(path)
    mode = stat.S_IMODE(found.st_mode)
    if os.name != "posix" or not mode & 0o077:
        return []
    if mode & 0o007:
        who, advice = "other users", private(path, found)
    else:
        # Often deliberate: root owns the file, and this user reads it through the group.
        who, advice = f"the group {_group(found.st_gid)}", "keep other users out of that group"
    return [f"{who} can read the secret in {path} (mode {mode:04o}): {advice}"]


def private(path: str | os.PathLike[str], found: os.stat_result) -> str:
    """How to make a file readable by one user only, without making it unreadable for this one."""
    ours = os.geteuid()
    if found.st_uid == ours:
        return f"chmod 600 {path}, after which only {_user(ours)} can use it"
    return (
        f"chown {_user(ours)} {path} && chmod 600 {path}, after which only {_user(ours)} can use "
        f"it; its owner is {_user(found.st_uid)}"
    )


def _user(number: int) -> str:
    import pwd  # imported here because Windows has no such module

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    import grp  # imported here because Windows has no such module

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "?"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else "the path is invalid"


def _unusable(message: str, help_text: str | None, parameter: str | None = None) -> ConfigError:
    return ConfigError(
        {
            "status": ConfigError.status,
            "message": message,
            "help": help_text,
            "parameter": parameter,
        }
    )
