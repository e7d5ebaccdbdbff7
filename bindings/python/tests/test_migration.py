"""Migration from the vendor's SDKs: their own packages obtain and store the tokens.

The SDKs for Node and Python are the published packages, and store their sessions through MongoDB's
drivers in a server that speaks MongoDB's protocol. A part that is not installed is left out, with
a line that says how to install it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from .support import REPOSITORY, environment
from .test_cli import CliTest

Test = TypeVar("Test", bound=Callable[..., Any])

VENDOR = Path(__file__).parent / "vendor"

NODE_MODULES = os.environ.get("GHL_NODE_MODULES", str(VENDOR / "node_modules"))
NODE = bool(shutil.which("node")) and Path(NODE_MODULES, "@gohighlevel/api-client").is_dir()
PYTHON_SDK = importlib.util.find_spec("highlevel") is not None
SERVER = all(importlib.util.find_spec(name) for name in ("secantus", "pymongo"))
PHP = shutil.which("php") is not None
GO_DRIVER = Path("/usr/share/gocode/src/go.mongodb.org/mongo-driver/bson")
GO = bool(shutil.which("go")) and GO_DRIVER.is_dir()


def needs(is_there: bool, part: str, packages: str) -> Callable[[Test], Test]:
    """Leaves a part out that is not installed, and says so."""
    if not is_there:
        print(f"skipped: migration from {part} ({packages})")
    return unittest.skipUnless(is_there, f"needs {packages}")


needs_node = needs(
    NODE, "the Node SDK", "node, npm install @gohighlevel/api-client@3.1.0, GHL_NODE_MODULES"
)
needs_python_sdk = needs(PYTHON_SDK, "the Python SDK", "pip install gohighlevel-api-client==3.0.0")
needs_mongo = needs(
    SERVER and GO,
    "MongoDB",
    "pip install secantusdb==0.7.0b3; apt-get install golang-go golang-mongodb-mongo-driver-dev",
)
needs_php = needs(PHP, "PHP sessions", "apt-get install php-cli")


def php_has_mongodb() -> bool:
    shown = subprocess.run(["php", "-m"], capture_output=True, text=True, check=False)
    return "mongodb" in shown.stdout.split()


class OlderApi(BaseHTTPRequestHandler):
    """The API before v3, which the Node SDK speaks, in front of the emulator."""

    emulator_url: str

    NAMES: ClassVar = {
        "accessToken": "access_token",
        "refreshToken": "refresh_token",
        "expiresIn": "expires_in",
        "tokenType": "token_type",
    }

    def do_POST(self) -> None:
        form = urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode())
        body = {
            re.sub("_([a-z])", lambda found: found[1].upper(), name): value for name, value in form
        }
        path = self.path.replace("/oauth/locationToken", "/oauth/location-token")
        headers = {"Version": "v3"}
        if "Authorization" in self.headers:
            headers["Authorization"] = self.headers["Authorization"]
        request = urllib.request.Request(
            self.emulator_url + path, urllib.parse.urlencode(body).encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, document = answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                status, document = error.code, json.load(error)
        data = json.dumps(
            {self.NAMES.get(name, name): value for name, value in document.items()}
        ).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def older_api(emulator_url: str) -> Generator[str, None, None]:
    handler = type("Handler", (OlderApi,), {"emulator_url": emulator_url})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Mongo:
    """A server that speaks MongoDB's protocol, and the exports of its collections."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-m", "secantus", "--port", "0", "--standalone", "--storage-path",
             ":memory:", "--log-level", "INFO"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self.server.stdout
        port = None
        for line in self.server.stdout:
            port = re.search(r"listening on 127\.0\.0\.1:(\d+)", line)
            if port:
                break
        assert port, "the server did not start"
        self.url = f"mongodb://127.0.0.1:{port[1]}"
        # Its log must be read, or it would wait for a full pipe.
        self.reader = threading.Thread(target=self.server.stdout.read)
        self.reader.start()

    def stop(self) -> None:
        self.server.kill()
        self.server.wait()
        self.reader.join()
        assert self.server.stdout
        self.server.stdout.close()

    def documents(self, database: str) -> bytes:
        """The collection of the SDKs as BSON."""
        from bson import encode
        from pymongo import MongoClient

        client: Any
        with MongoClient(self.url) as client:
            return b"".join(map(encode, client[database]["application_sessions"].find()))


class Exporter:
    """mongoexport's output, by the function of the driver that mongoexport uses."""

    program: Path | None = None
    folder: Any = None

    @classmethod
    def export(cls, documents: bytes, form: str) -> str:
        if cls.program is None:
            cls.folder = tempfile.TemporaryDirectory()
            unittest.addModuleCleanup(cls.folder.cleanup)
            cls.program = Path(cls.folder.name) / "mongoexport"
            variables = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode",
                         "GOFLAGS": "-trimpath"}  # fmt: skip
            subprocess.run(
                ["go", "build", "-o", str(cls.program), str(VENDOR / "mongoexport.go")],
                env=variables, check=True, timeout=600,
            )  # fmt: skip
        shown = subprocess.run(
            [str(cls.program), form.partition(" ")[0]],
            input=documents, stdout=subprocess.PIPE, check=True, timeout=60,
        )  # fmt: skip
        lines = shown.stdout.decode().splitlines()
        return f"[{','.join(lines)}]\n" if "--jsonArray" in form else "\n".join(lines) + "\n"


FORMS = ("relaxed", "canonical", "relaxed --jsonArray", "canonical --jsonArray")


class MigrationTest(CliTest):
    def setUp(self) -> None:
        super().setUp()
        self.location_id = self.emulator.location_ids[0]
        self.app = self.emulator.configuration["clientId"].partition("-")[0]

    def redirect_url(self) -> str:
        """The consent of the company, for the old program."""
        return self.emulator.consent(
            self.client.authorization_url().url, companyId=self.emulator.company_id
        )

    def task(self, **more: Any) -> dict[str, Any]:
        configuration = self.emulator.configuration
        return {
            "clientId": configuration["clientId"],
            "clientSecret": configuration["clientSecret"],
            "redirectUri": configuration["redirectUri"],
            "redirectUrl": self.redirect_url(),
            "companyId": self.emulator.company_id,
            "locationId": self.location_id,
            **more,
        }

    def run_node(self, **more: Any) -> str:
        with older_api(self.emulator.base_url) as url:
            ended = subprocess.run(
                ["node", str(VENDOR / "sessions.js"), json.dumps(self.task(baseUrl=url, **more))],
                env={**environment(), "NODE_PATH": NODE_MODULES},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout

    def run_python(self, **more: Any) -> str:
        task = self.task(baseUrl=self.emulator.base_url, **more)
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", str(VENDOR / "sessions.py"), json.dumps(task)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        )
        return ended.stdout

    def run_php(self, **task: Any) -> None:
        ended = subprocess.run(
            ["php", str(VENDOR / "sessions.php"), json.dumps({"app": self.app, **task})],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stderr, ended.stdout), (0, "", ""))

    def mongo(self) -> Mongo:
        server = Mongo(self.folder)
        self.addCleanup(server.stop)
        return server

    def tokens(self) -> list[dict[str, Any]]:
        """Tokens of the company and a location, which no store holds afterwards."""
        self.install()
        self.client.access_token(self.location_id)
        return [dict(token.raw) for token in self.client.tokens_export()]

    def stored(self) -> list[str]:
        return sorted(each["resourceId"] for each in json.loads(self.ok("list", "--json")))

    def imports(self, *files: Path, skipped: int = 0) -> None:
        """Imports the tokens of the company and the location, after a dry run that says so."""
        owners = sorted((self.emulator.company_id, self.location_id))
        names = [str(file) for file in files]
        planned = json.loads(self.ok("import", "--dry-run", "--json", *names))
        self.assertEqual(sorted(token["resourceId"] for token in planned["accepted"]), owners)
        self.assertEqual((planned["imported"], len(planned["skipped"])), (2, skipped))
        self.assertEqual(self.stored(), [])
        table = self.ok("import", "--dry-run", *names)
        for owner in owners:
            self.assertRegex(table, rf"(?m)^{owner}  +import  ")
        self.assertIn("2 would be imported", table)
        refreshes = self.emulator.refreshes()
        done = self.run_cli("import", *names)
        self.assertEqual((done.returncode, done.stdout), (0, f"2 imported, {skipped} skipped\n"))
        self.assertEqual(self.stored(), owners)
        # Valid tokens are used as they are; then each refresh token works.
        for owner in owners:
            self.ok("token", owner)
        self.assertEqual(self.emulator.refreshes(), refreshes)
        for owner in owners:
            self.ok("refresh", owner)
        self.assertEqual(self.emulator.refreshes(), refreshes + 2)
        # The same files again: the refresh tokens are spent.
        again = self.run_cli("import", *names)
        self.assertEqual(again.returncode, 1)
        for owner in owners:
            self.assertRegex(again.stderr, rf"(?m)^  skipped {owner}: .*already spent")


class SessionsTest(MigrationTest):
    """The sessions that each SDK stores."""

    @needs_node
    @needs_mongo
    def test_sessions_of_the_node_sdk_in_mongodb_are_imported_from_every_form_of_an_export(
        self,
    ) -> None:
        mongo = self.mongo()
        self.run_node(mongo=mongo.url, database="crm")
        documents = mongo.documents("crm")
        owners = {self.emulator.company_id, self.location_id}
        files = []
        for index, form in enumerate(FORMS):
            text = Exporter.export(documents, form)
            self.assertIn("E+12", text, "the driver writes the expiry as a number of this form")
            files.append(self.folder / f"{index}.json")
            files[-1].write_text(text)
            planned = json.loads(self.ok("import", "--dry-run", "--json", str(files[-1])))
            self.assertEqual({each["resourceId"] for each in planned["accepted"]}, owners, form)
        self.imports(files[0])

    @needs_node
    def test_sessions_of_the_node_sdk_in_memory_are_imported_from_a_dict(self) -> None:
        file = self.folder / "sessions.json"
        file.write_text(self.run_node())
        self.assertIn(f"{self.app}:{self.location_id}", json.loads(file.read_text()))
        self.imports(file)

    @needs_python_sdk
    @needs_mongo
    def test_session_of_the_python_sdk_is_imported_with_the_token_of_its_last_refresh(
        self,
    ) -> None:
        mongo = self.mongo()
        self.run_python(mongo=mongo.url, database="crm")
        file = self.folder / "sessions.ndjson"
        file.write_text(Exporter.export(mongo.documents("crm"), "relaxed"))
        self.imports(file)

    @needs_python_sdk
    def test_sessions_of_the_python_sdk_in_memory_are_imported_from_a_dict(self) -> None:
        file = self.folder / "sessions.json"
        file.write_text(self.run_python())
        self.imports(file)

    @needs_php
    def test_php_session_files_of_every_handler_are_imported(self) -> None:
        tokens = self.tokens()
        files = []
        for handler in ("php", "php_serialize", "php_binary"):
            folder = self.folder / handler
            folder.mkdir()
            self.run_php(folder=str(folder), handler=handler, tokens=tokens)
            (folder / "sess_new").touch()
            (folder / "sess_visitor2").write_text("visits|i:1;")
            files.append(folder)
            planned = json.loads(self.ok("import", "--dry-run", "--json", str(folder)))
            self.assertEqual((planned["imported"], planned["skipped"]), (2, []), handler)
        self.imports(files[0])

    @needs_php
    @needs_mongo
    def test_sessions_of_the_php_driver_in_mongodb_are_imported(self) -> None:
        if not php_has_mongodb():
            self.skipTest("needs Debian's php-mongodb")
        mongo = self.mongo()
        self.run_php(mongo=mongo.url, database="crm", tokens=self.tokens())
        file = self.folder / "sessions.ndjson"
        file.write_text(Exporter.export(mongo.documents("crm"), "canonical"))
        self.imports(file)


class PageTest(MigrationTest):
    """The page on migration, and the example."""

    PAGE = REPOSITORY / "docs" / "migration.md"

    def blocks(self, language: str) -> list[str]:
        text = self.PAGE.read_text(encoding="utf-8")
        return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)

    def column(self, title: str, heading: str) -> list[str]:
        """The code in a column of the table below a heading."""
        section = self.PAGE.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in section.partition("\n## ")[0].partition("\n### ")[0].splitlines()
            if line.startswith("|")
        ]
        index = rows[0].index(title)
        names = [name for row in rows[2:] for name in re.findall("`([^`]+)`", row[index])]
        self.assertGreater(len(names), 5)
        return names

    def node(self, program: str, **task: Any) -> str:
        """Runs a program with the SDK's names and the task's members."""
        names = ", ".join(task)
        ended = subprocess.run(
            ["node", "-", json.dumps(task)],
            input=f"""
                const fs = require("node:fs");
                const {{ HighLevel, MemorySessionStorage, ...others }} =
                  require("@gohighlevel/api-client");
                const {{ {names} }} = JSON.parse(process.argv[2]);
                (async () => {{ {program} }})().then(() => process.exit(0));
            """,
            cwd=self.folder,
            env={**environment(), "NODE_PATH": NODE_MODULES},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout

    @needs_node
    def test_calls_of_the_node_sdk_on_the_page_exist(self) -> None:
        calls = self.column("Node.js SDK", "## Call by call")
        errors = self.column("Node.js SDK", "### Errors")
        shown = self.node(
            """
            const sdk = new HighLevel({ clientId: "app-1", clientSecret: "s" });
            const storage = sdk.getSessionStorage();
            const isMissing = (name) =>
              name !== "new HighLevel" && typeof eval(name) === "undefined";
            console.log(JSON.stringify(calls.filter(isMissing)));
            console.log(JSON.stringify(errors.filter((name) => !(name in others))));
            """,
            calls=calls,
            errors=errors,
        )
        self.assertEqual(shown, "[]\n[]\n")

    @needs_python_sdk
    def test_calls_of_the_python_sdk_on_the_page_exist(self) -> None:
        # In a process of its own, because the SDK opens an event loop that it does not close.
        program = """
import sys
from highlevel import HighLevel
sdk = HighLevel(client_id="app-1", client_secret="s")
storage = sdk.get_session_storage()
for name in sys.argv[1:]:
    eval(name)
"""
        calls = self.column("Python SDK", "## Call by call")
        subprocess.run([sys.executable, "-W", "ignore", "-c", program, *calls], check=True)

    def test_calls_of_the_library_on_the_page_exist(self) -> None:
        import ghl_oauth

        for name in self.column("Python", "## Call by call"):
            self.assertTrue(
                name == "Client" or hasattr(ghl_oauth.Client, name.partition(".")[2]), name
            )
        header = (REPOSITORY / "include" / "ghl_oauth.h").read_text(encoding="utf-8")
        for name in self.column("C", "## Call by call"):
            self.assertIn(f" {name}(", header)
        for call in self.column("Node.js", "## Call by call"):
            for name in re.findall(r"\bghl_\w+", call):
                self.assertIn(f" {name}(", header)
            # The class of the example passes one JSON document.
            for name in re.findall(r'client\.call\("(\w+)"', call):
                takes_json = rf" {name}\([^,]*,[^,]* \*\w+_json,[^,]* \*\*out_json\)"
                self.assertTrue(re.search(takes_json, header), name)
        for name in self.column("Node.js, PHP, C", "### Errors"):
            self.assertIn(f" {name} = ", header)
        for name in self.column("Python", "### Errors"):
            self.assertTrue(issubclass(getattr(ghl_oauth, name), ghl_oauth.GhlError))

    @needs_node
    def test_code_of_the_page_moves_sessions_to_the_library_and_back(self) -> None:
        dump, restore, reuse = self.blocks("js")
        sessions = self.run_node()
        # The old program, before it stops, with the sessions that it holds.
        self.node(
            f"const storage = {{ sessions: new Map(Object.entries(held)) }}; {dump}",
            held=json.loads(sessions),
        )
        if os.name == "posix":
            self.assertEqual((self.folder / "sessions.json").stat().st_mode & 0o777, 0o600)
        self.ok("import", str(self.folder / "sessions.json"))
        for owner in (self.emulator.company_id, self.location_id):
            self.ok("refresh", owner)

        token = self.ok("token", self.location_id).strip()
        shown = self.node(
            f"{reuse}\nconsole.log(await sdk.getTokenForSecurity(['bearer']));", token=token
        )
        self.assertEqual(shown, f"Bearer {token}\n")

        ended = self.run_cli("export", "--output", str(self.folder / "export.json"))
        self.assertEqual(ended.returncode, 0)
        configuration = self.emulator.configuration
        with older_api(self.emulator.base_url) as url:
            shown = self.node(
                f"""
                HighLevel.BASE_URL = url;
                const storage = new MemorySessionStorage();
                const sdk = new HighLevel({{ clientId, clientSecret, sessionStorage: storage }});
                {{ {restore} }}
                for (const owner of owners) {{
                  const session = await storage.getSession(owner);
                  console.log(session.expire_at > Date.now() + 3600 * 1000);
                  console.log(Boolean(await sdk.refreshTokenIfNeeded(owner, session)));
                }}
                """,
                url=url,
                clientId=configuration["clientId"],
                clientSecret=configuration["clientSecret"],
                owners=[self.emulator.company_id, self.location_id],
            )
        self.assertEqual(shown, "true\n" * 4)

    @needs_python_sdk
    @needs_mongo
    @unittest.skipUnless(os.name == "posix", "runs a shell script")
    def test_example_moves_a_program_from_the_python_sdk(self) -> None:
        example = REPOSITORY / "examples" / "migration"
        script = (example / "migrate.sh").read_text()
        (block,) = self.blocks("sh")
        self.assertIn(block, script)
        url = f"{self.mongo().url}/crm"
        before = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(example / "before.py"), str(self.config), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(before.kill)
        assert before.stdin and before.stdout
        link = before.stdout.readline().split()[1]
        redirect_url = self.emulator.consent(link, companyId=self.emulator.company_id)
        shown, _ = before.communicate(f"{redirect_url}\n", timeout=60)
        self.assertIn(f"stored the token of {self.emulator.company_id}", shown)

        Exporter.export(b"", "relaxed")
        programs = self.folder / "bin"
        programs.mkdir()
        for name, text in (
            ("ghl-oauth", f'#!/bin/sh\nexec "{sys.executable}" -m ghl_oauth "$@"\n'),
            ("mongoexport", MONGOEXPORT.format(python=sys.executable, program=Exporter.program)),
        ):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        variables = {**self.variables, "PATH": f"{programs}:{os.environ['PATH']}"}
        moved = subprocess.run(
            ["sh", str(example / "migrate.sh"), url],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual((moved.returncode, moved.stderr), (0, ""), moved.stdout)
        self.assertIn("1 would be imported", moved.stdout)
        self.assertIn("\n1 imported, 0 skipped\n", moved.stdout)
        self.assertFalse((self.folder / "sessions.ndjson").exists())

        refreshes = self.emulator.refreshes()
        after = subprocess.run(
            [sys.executable, str(example / "after.py"), str(self.config)],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((after.returncode, after.stderr), (0, ""))
        self.assertIn(f"refreshed the token of {self.emulator.company_id}", after.stdout)
        for location in self.emulator.location_ids:
            self.assertIn(f"location {location} has a token: True", after.stdout)
        self.assertEqual(self.emulator.refreshes(), refreshes + 1)


MONGOEXPORT = """\
#!{python}
import argparse, subprocess
from bson import encode
from pymongo import MongoClient

parser = argparse.ArgumentParser()
for name in ("uri", "collection", "out"):
    parser.add_argument("--" + name, required=True)
options = parser.parse_args()
with MongoClient(options.uri) as client:
    found = client.get_default_database()[options.collection].find()
    documents = b"".join(map(encode, found))
with open(options.out, "wb") as file:
    subprocess.run(["{program}", "relaxed"], input=documents, stdout=file, check=True)
"""
