"""``ghl-oauth init``: writes a configuration file with explanations."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from ..._configuration import place
from .. import output, status
from ..arguments import text
from ..output import Refusal, say

DESCRIPTION = (
    "Writes a configuration file with explanations, and a file for the client secret, both "
    "readable only by you. On a terminal it asks for what the options do not say; the secret is "
    "typed without being shown and cannot be given as an option. Existing files are never changed. "
    "With --json the configuration has no comments and only absolute paths, so that any program "
    "can read it."
)
EXAMPLES = (
    "ghl-oauth init",
    "ghl-oauth --config ./ghl.json init --client-id 6600aabbccddeeff00112233-key \\\n"
    "      --redirect-uri https://app.example/oauth/callback",
)

_CLIENT_ID = "<client ID>"
_REDIRECT_URI = "https://app.example/oauth/callback"
_SCOPES = "oauth.readonly oauth.write locations.readonly"
_SECRET_FILE = "client-secret.txt"

_TEMPLATE = """\
{
  // Lines that begin with // are comments, which only ghl-oauth and the Python package accept.
  // docs/configuration.md describes all keys.

  // The client ID of the app, from the client keys in the developer portal.
  "clientId": %(client_id)s,

  // The file that holds the client secret of the same key, and nothing else. A relative path starts
  // at the folder of this file. The environment variable GHL_OAUTH_CLIENT_SECRET overrides it.
  "clientSecretFile": %(secret_file)s,

  // Where the consent page sends the browser: exactly as registered in the portal.
  "redirectUri": %(redirect_uri)s,

  // What the app may do. oauth.readonly and oauth.write are needed to mint tokens for locations.
  "scopes": %(scopes)s,

  // Where tokens are kept. All programs that use them need the same store: one file per machine, or
  // {"kind": "postgres", "url": "postgres://user:password@host/database"} for several machines.
  "store": {"kind": "sqlite", "path": %(store)s}

  // Optional, each after a comma:
  // "http": {"proxy": "http://proxy.example:3128", "caBundlePath": "company-ca.pem"}
  // "refresh": {"marginSeconds": 300}
  // "timeouts": {"totalMs": 30000}
}
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own arguments."""
    parser.add_argument("--client-id", type=text, metavar="ID", help="the app's client ID")
    parser.add_argument(
        "--redirect-uri", type=text, metavar="URI", help="the redirect URI of the app"
    )
    parser.add_argument(
        "--scopes", type=text, help=f"scopes, separated by spaces. Default: {_SCOPES}"
    )
    parser.add_argument(
        "--store",
        type=text,
        metavar="FILE",
        default="tokens.db",
        help="the database of the tokens. Default: tokens.db next to the configuration",
    )


def run(options: argparse.Namespace) -> int:
    """Writes the files, and says what to do next."""
    path = Path(place(options.config))
    if os.path.lexists(path):
        raise Refusal(f"{path} exists already", "edit it, or choose another file with --config")
    asks = sys.stdin is not None and sys.stdin.isatty() and output.is_terminal(sys.stderr)
    client_id = options.client_id or _ask(asks, "Client ID", _CLIENT_ID)
    redirect_uri = options.redirect_uri or _ask(asks, "Redirect URI", _REDIRECT_URI)
    scopes = options.scopes or _ask(asks, "Scopes", _SCOPES)
    secret_path = path.parent / _SECRET_FILE
    secret = "" if os.path.lexists(secret_path) or not asks else _ask_secret()
    secret_file, store = _SECRET_FILE, options.store
    if options.json:
        # For `ghl_client_new`, relative paths start at the working directory.
        secret_file = os.path.abspath(secret_path)
        store = os.path.abspath(path.parent / os.path.expanduser(store))
    template = _without_comments(_TEMPLATE) if options.json else _TEMPLATE
    configuration = template % {
        "client_id": json.dumps(client_id),
        "secret_file": json.dumps(secret_file),
        "redirect_uri": json.dumps(redirect_uri),
        "scopes": json.dumps(scopes.split()),
        "store": json.dumps(store),
    }
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"{path.parent} cannot be created: {error.strerror}") from None
    # Last, so that a run after a failure begins anew.
    if not os.path.lexists(secret_path):
        _create(secret_path, f"{secret}\n" if secret else "")
    _create(path, configuration)
    if options.json:
        output.show_json({"configuration": str(path), "clientSecretFile": str(secret_path)})
    else:
        output.put(f"written: {path}")
    steps = []
    if client_id == _CLIENT_ID:
        steps.append(f"replace the client ID and the redirect URI in {path}")
    if not secret and not _has_content(secret_path):
        steps.append(f"put the client secret into {secret_path}")
    program = "ghl-oauth"
    if options.config:
        program += f" --config {shlex.quote(options.config)}"
    steps += [f"{program} doctor", f"{program} login --paste"]
    say("Next:" + "".join(f"\n  {number}. {step}" for number, step in enumerate(steps, 1)))
    return status.OK


def _without_comments(template: str) -> str:
    lines = template.split("\n")
    return (
        "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("//"))
        + "\n"
    )


def _ask(asks: bool, question: str, usual: str) -> str:
    if not asks:
        return usual
    sys.stderr.write(f"{question} [{usual}]: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() or usual


def _ask_secret() -> str:
    from getpass import getpass

    return getpass("Client secret (not shown; Enter to add it later): ", sys.stderr).strip()


def _create(path: Path, content: str) -> None:
    """Creates a file with its whole content, or not at all."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
        except BaseException:
            os.unlink(path)
            raise
    except OSError as error:
        raise Refusal(f"{path} cannot be created: {error.strerror}") from None


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
