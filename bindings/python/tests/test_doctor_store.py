"""``ghl-oauth doctor`` and stores that cannot be used as they are."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import unittest

from .support import postgresql_programs, start_postgresql
from .test_doctor import DoctorCase


class PostgresTest(DoctorCase):
    """The role of the app owns the tables of the library, unless a test changes that."""

    def setUp(self) -> None:
        programs = postgresql_programs()
        super().setUp()
        psql = programs / "psql"
        self.psql = str(psql) if psql.exists() else shutil.which("psql")
        self.assertIsNotNone(self.psql, "apt-get install postgresql-client")
        self.admin = start_postgresql(self, self.folder, programs)
        self.sql("CREATE ROLE app LOGIN", "GRANT CREATE ON SCHEMA public TO app")
        self.url = self.admin.replace("ghl:any@", "app:any@")
        self.configure(store={"kind": "postgres", "url": self.url})

    def sql(self, *statements: str) -> None:
        assert self.psql
        options = [option for each in statements for option in ("-c", each)]
        subprocess.run(
            [self.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", *options, self.admin],
            check=True,
            capture_output=True,
        )

    def test_rights_and_columns_of_the_token_table_are_tested(self) -> None:
        self.finds("store", "ok", "a write probe was saved", status=3)
        self.sql("ALTER TABLE ghl_oauth_token OWNER TO ghl")
        for rights in (
            "SELECT",
            "SELECT, DELETE",
            "SELECT, INSERT, DELETE",
            "SELECT, INSERT, UPDATE",
        ):
            with self.subTest(rights):
                self.sql(
                    "REVOKE ALL ON ghl_oauth_token FROM app",
                    f"GRANT {rights} ON ghl_oauth_token TO app",
                )
                self.finds("store", "problem", "permission denied", "the role needs", status=1)
        self.sql("GRANT ALL ON ghl_oauth_token TO app")
        self.finds("store", "ok", "a write probe was saved", status=3)
        listed = json.loads(self.run_cli("adopt", "--json").stdout)
        self.assertEqual(listed["clients"], [], "the probe is gone")
        self.sql("ALTER TABLE ghl_oauth_token DROP COLUMN renew_at")
        self.finds("store", "problem", "renew_at", "store.url", "restore a backup", status=2)

    def test_role_that_may_not_create_the_tables_gets_the_advice_to_grant_that(self) -> None:
        self.sql("REVOKE CREATE ON SCHEMA public FROM app, public")
        self.finds("store", "problem", "permission denied", "GRANT CREATE ON SCHEMA", status=1)

    def test_table_of_another_program_is_a_wrong_configuration(self) -> None:
        self.sql("CREATE TABLE ghl_oauth_token (id int)")
        self.finds("store", "problem", "another program", "store.url", status=2)


class SqliteTest(DoctorCase):
    def execute(self, *statements: str) -> None:
        database = sqlite3.connect(self.folder / "tokens.db")
        with contextlib.closing(database), database:
            for statement in statements:
                database.execute(statement)

    def store_checks(self, status: int) -> list[dict[str, str]]:
        ended = self.run_cli("doctor", "--json")
        self.assertEqual(ended.returncode, status, ended.stdout)
        return [each for each in json.loads(ended.stdout)["checks"] if each["name"] == "store"]

    def test_missing_column_is_found_by_the_probe(self) -> None:
        self.login()
        self.execute("DROP INDEX token_by_renewal", "ALTER TABLE token DROP COLUMN renew_at")
        self.finds("store", "problem", "renew_at", "store.path", "-wal and -shm", status=2)

    def test_missing_table_is_found(self) -> None:
        for table in ("token", "note"):
            with self.subTest(table):
                self.login()
                self.execute(f"DROP TABLE {table}")
                self.finds("store", "problem", f"no such table: {table}", status=2)
                (self.folder / "tokens.db").unlink()

    def test_newer_database_of_another_program_is_reported_once(self) -> None:
        self.execute("CREATE TABLE customers (name TEXT)", "PRAGMA user_version = 17")
        (check,) = self.store_checks(2)
        self.assertIn("another program", check["message"])
        self.assertNotIn("update the library", check["help"])
        with contextlib.closing(sqlite3.connect(self.folder / "tokens.db")) as database:
            tables = database.execute("SELECT name FROM sqlite_master").fetchall()
        self.assertEqual(tables, [("customers",)], "it is left alone")

    def test_damage_is_reported_once_and_in_plain_words(self) -> None:
        self.login()
        database = self.folder / "tokens.db"
        content = bytearray(database.read_bytes())
        # The first page is intact, so that the tables are still listed.
        content[4096:] = b"\x55" * (len(content) - 4096)
        database.write_bytes(content)
        (check,) = self.store_checks(1)
        self.assertIn("is damaged: ", check["message"])
        self.assertNotIn("***", check["message"])

    def test_advice_for_a_damaged_database_saves_every_readable_token(self) -> None:
        self.login()
        self.ok("mint", self.emulator.company_id)
        tokens = json.loads(self.ok("list", "--json"))
        self.assertGreater(len(tokens), 3)
        database = self.folder / "tokens.db"
        with contextlib.closing(sqlite3.connect(database)) as connection:
            ((page,),) = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'token_by_company'"
            )
        with open(database, "r+b") as file:
            file.seek(4096 * (page - 1))
            file.write(b"\x55" * 4096)
        (check,) = self.store_checks(1)
        advice = check["help"]
        steps = [
            "stop all processes",
            "copy the file with its -wal and -shm",
            "ghl-oauth export --output rescue.json",
            "remove the three files",
            "restore a backup",
            "ghl-oauth import rescue.json",
        ]
        self.assertEqual(sorted(steps, key=advice.find), steps, advice)
        self.assertTrue(all(step in advice for step in steps), advice)

        rescue = str(self.folder / "rescue.json")
        self.assertEqual(self.run_cli("export", "--output", rescue).returncode, 0)
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{database}{ending}")
        self.ok("import", rescue)
        self.assertEqual(
            [token["resourceId"] for token in json.loads(self.ok("list", "--json"))],
            [token["resourceId"] for token in tokens],
        )

    def test_database_that_is_too_large_to_be_inspected_is_named(self) -> None:
        self.login()
        database = self.folder / "tokens.db"
        os.truncate(database, 33 * 1024 * 1024)
        skipped, usable = self.store_checks(0)
        self.assertEqual((skipped["outcome"], usable["outcome"]), ("skipped", "ok"))
        self.assertIn("not checked for damage", skipped["message"])
        self.assertIn(f"sqlite3 -readonly {database} 'PRAGMA quick_check'", skipped["help"])
        self.execute("CREATE TABLE customers (name TEXT)")
        os.truncate(database, 33 * 1024 * 1024)
        self.finds("store", "warning", "customers", status=0)

    def test_missing_encryption_key_is_a_wrong_configuration(self) -> None:
        right, wrong = (base64.b64encode(bytes([each] * 32)).decode() for each in (1, 2))
        store = {"kind": "sqlite", "path": str(self.folder / "tokens.db")}
        self.login()
        self.configure(store={**store, "encryptionKeys": [right]})
        self.ok("maintain")
        for keys in ([], [wrong]):
            with self.subTest(keys):
                self.configure(store={**store, "encryptionKeys": keys} if keys else store)
                self.finds("store", "problem", "is sealed with the key", "add that key", status=2)
                self.assertEqual(self.run_cli("list").returncode, 2)

    @unittest.skipUnless(hasattr(os, "symlink"), "needs symbolic links")
    def test_path_that_cannot_be_opened_is_no_temporary_error(self) -> None:
        database, locks = self.folder / "tokens.db", self.folder / "tokens.db.locks"
        database.symlink_to(database)
        self.finds("store", "problem", os.strerror(errno.ELOOP), "store.path", status=1)
        database.unlink()
        locks.touch()
        self.finds("store", "problem", f"{locks} is not a folder", "move it away", status=1)
        locks.unlink()
        locks.symlink_to(locks)
        self.finds("store", "problem", str(locks), os.strerror(errno.ELOOP), status=1)
