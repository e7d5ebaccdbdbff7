"""The broker's database: consents in progress, and installations with the digests of their tokens.

Of a token only the digest is stored, so a copy of the database gives no access.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import ghl_oauth

CONSENT_SECONDS = 3600
CODE_SECONDS = 300
ACCESS_SECONDS = 600

SCHEMA = """
CREATE TABLE IF NOT EXISTS consent (
    state TEXT PRIMARY KEY, redirect_uri TEXT, program_state TEXT, expires REAL);
CREATE TABLE IF NOT EXISTS code (
    code TEXT PRIMARY KEY, redirect_uri TEXT, installation INTEGER, expires REAL);
CREATE TABLE IF NOT EXISTS installation (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user_type TEXT, company_id TEXT,
    location_id TEXT, resource_id TEXT, refresh TEXT, former TEXT, access TEXT, expires REAL);
"""


@dataclass(frozen=True)
class Grant:
    """An installation, and the owner of the API's token that it may use."""

    id: int
    user_type: str | None
    company_id: str | None
    location_id: str | None
    resource_id: str


class Installations:
    """Any number of threads and processes may use one database."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the database, and creates it if it does not exist."""
        self._path = path
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._transaction() as database:
            for statement in SCHEMA.split(";"):
                database.execute(statement)

    def begin(self, state: str, redirect_uri: str, program_state: str) -> None:
        """Remembers where the browser goes after the consent with this state."""
        with self._transaction() as database:
            for table in ("consent", "code"):
                database.execute(f"DELETE FROM {table} WHERE expires < ?", [time.time()])
            database.execute(
                "DELETE FROM installation"
                " WHERE refresh IS NULL AND id NOT IN (SELECT installation FROM code)"
            )
            database.execute(
                "INSERT INTO consent VALUES (?, ?, ?, ?)",
                [digest(state), redirect_uri, program_state, time.time() + CONSENT_SECONDS],
            )

    def begun(self, state: str) -> tuple[str, str] | None:
        """The redirect URI and the state of the program that began this consent."""
        with self._transaction() as database:
            found: tuple[str, str] | None = database.execute(
                "SELECT redirect_uri, program_state FROM consent WHERE state = ? AND expires > ?",
                [digest(state), time.time()],
            ).fetchone()
        return found

    def issue_code(self, state: str, owner: ghl_oauth.TokenInfo) -> str:
        """Ends the consent with a new installation. Returns the code for its tokens."""
        code = secrets.token_urlsafe(32)
        values = [owner.user_type, owner.company_id, owner.location_id, owner.resource_id]
        with self._transaction() as database:
            (redirect_uri,) = database.execute(
                "DELETE FROM consent WHERE state = ? RETURNING redirect_uri", [digest(state)]
            ).fetchone()
            made = database.execute(
                "INSERT INTO installation (user_type, company_id, location_id, resource_id)"
                " VALUES (?, ?, ?, ?)",
                values,
            )
            database.execute(
                "INSERT INTO code VALUES (?, ?, ?, ?)",
                [digest(code), redirect_uri, made.lastrowid, time.time() + CODE_SECONDS],
            )
        return code

    def redeem(self, code: str, redirect_uri: str) -> Grant | None:
        """The installation of a code, which stays valid until :meth:`issue` uses it."""
        with self._transaction() as database:
            found = database.execute(
                "SELECT installation FROM code WHERE code = ? AND redirect_uri = ? AND expires > ?",
                [digest(code), redirect_uri, time.time()],
            ).fetchone()
            return self._grant(database, "id = ?", found) if found else None

    def find(self, refresh_token: str) -> Grant | None:
        """The installation of a refresh token. The former one is valid until the new one is used:
        its response may have been lost."""
        with self._transaction() as database:
            database.execute(
                "UPDATE installation SET former = refresh WHERE refresh = ?",
                [digest(refresh_token)],
            )
            return self._grant(database, "former = ?", [digest(refresh_token)])

    def issue(self, grant: Grant, code: str | None = None) -> tuple[str, str, int] | None:
        """A new access token, a new refresh token, and the seconds for which the first is valid.

        None if the code was already used, or the installation was revoked.
        """
        access, refresh = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        with self._transaction() as database:
            if code is not None:
                used = database.execute("DELETE FROM code WHERE code = ?", [digest(code)])
                if not used.rowcount:
                    return None
            updated = database.execute(
                "UPDATE installation SET access = ?, refresh = ?, expires = ? WHERE id = ?",
                [digest(access), digest(refresh), time.time() + ACCESS_SECONDS, grant.id],
            )
        return (access, refresh, ACCESS_SECONDS) if updated.rowcount else None

    def owner(self, access_token: str) -> str | None:
        """The company or location whose data an access token opens."""
        with self._transaction() as database:
            grant = self._grant(
                database, "access = ? AND expires > ?", [digest(access_token), time.time()]
            )
        return grant.resource_id if grant else None

    def revoke(self, resource_id: str) -> int:
        """Ends all installations of a company or location, at once. Returns their number."""
        with self._transaction() as database:
            database.execute(
                "DELETE FROM code WHERE installation IN"
                " (SELECT id FROM installation WHERE resource_id = ?)",
                [resource_id],
            )
            statement = "DELETE FROM installation WHERE resource_id = ?"
            return database.execute(statement, [resource_id]).rowcount

    @staticmethod
    def _grant(database: sqlite3.Connection, where: str, values: Sequence[Any]) -> Grant | None:
        columns = "id, user_type, company_id, location_id, resource_id"
        statement = f"SELECT {columns} FROM installation WHERE {where}"
        found = database.execute(statement, values).fetchone()
        return Grant(*found) if found else None

    @contextlib.contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        database = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        finally:
            database.close()


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
