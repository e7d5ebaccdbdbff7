#!/usr/bin/env python3
"""Compares this library with its alternatives: python3 benches/peers/compare.py [QUESTION …].

`--locations N` mints more than 1,000. Run benches/peers/setup first: it downloads and builds the
peers. benches/peers/README.md explains the questions and the results.
"""

import argparse
import atexit
import contextlib
import functools
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "benches" / "peers"
BUILT = ROOT / "target" / "bench-peers"
RELEASE = ROOT / "target" / "release"
LIBRARY = RELEASE / "libghl_oauth.so"
BINDING = ROOT / "bindings" / "python" / "src"
PYTHON = BUILT / "python" / "bin" / "python"
MONGODB = BUILT / "mongodb" / "bin" / "python"
RUST = BUILT / "rust" / "release"

ENVIRONMENT = {
    **os.environ,
    "GHL_OAUTH_LIBRARY": str(LIBRARY),
    "PYTHONPATH": str(BINDING),
    "NODE_PATH": str(BUILT / "typescript" / "node_modules"),
}

RUNS = 5
HOUR_MS = 3_600_000
REUSE_WINDOW = 30


class Peer:
    """A program called as `PROGRAM QUESTION TASK`."""

    def __init__(self, name, command, store, version="v3"):
        self.name = name
        self.command = [str(word) for word in command]
        self.store = store
        self.speaks_v3 = version == "v3"

    def start(self, question, task):
        return subprocess.Popen(
            [*self.command, question, json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=ENVIRONMENT,
        )

    def answer(self, question, task):
        process = self.start(question, task)
        answer = next_answer(process)
        finish(process)
        return answer


OURS_C = Peer("ghl-oauth, C", [BUILT / "ours"], "sqlite")
OURS_PYTHON = Peer("ghl-oauth, Python", [PYTHON, HERE / "ours.py"], "sqlite")
VENDOR_PYTHON = Peer("vendor's Python SDK", [PYTHON, HERE / "vendor.py"], "sessions")
VENDOR_TYPESCRIPT = Peer(
    "vendor's TypeScript SDK", ["node", HERE / "vendor.js"], "sessions", "older"
)
GHL_SDK = Peer("ghl-sdk (Rust)", [RUST / "ghl-sdk-peer"], "file", "older")
GO = Peer("Go's oauth2", [BUILT / "oauth2"], "file", "older")
LIBCURL = Peer("by hand on libcurl", [BUILT / "libcurl"], "file")
PEERS = [OURS_C, OURS_PYTHON, VENDOR_PYTHON, VENDOR_TYPESCRIPT, GHL_SDK, GO, LIBCURL]

# The durable storage that the vendor's SDKs come with. Its time would be the time of the server
# that stands in for MongoDB, so only its outcomes are compared.
IN_MONGODB = [
    Peer("vendor's Python SDK, MongoDB", VENDOR_PYTHON.command, "mongodb"),
    Peer("vendor's TypeScript SDK, MongoDB", VENDOR_TYPESCRIPT.command, "mongodb", "older"),
]
WITH_MONGODB = [*PEERS[:4], *IN_MONGODB, *PEERS[4:]]


def next_answer(process):
    """The next line of JSON; the vendor's SDK also prints log lines."""
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    sys.exit(f"{process.args[:3]} exited without a response")


def finish(process):
    process.stdin.close()
    process.stdout.read()
    if process.wait() != 0:
        sys.exit(f"{process.args[:3]} failed")


class Emulator:
    """The emulator, and the proxy in front of it for clients of the older API version."""

    def __init__(self, *options):
        command = [RELEASE / "ghl-oauth-emulator", "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.base_url = re.search(r"http://\S+", self.process.stdout.readline())[0]
        app = self.control("GET", "")
        self.config = app["configuration"]
        self.app_id = self.config["clientId"].split("-")[0]
        self.company_id = app["companies"][0]["id"]
        self.location_ids = app["companies"][0]["locationIds"]
        port = urllib.parse.urlsplit(self.base_url).port
        self.front = subprocess.Popen(
            [RUST / "older_version", str(port)], stdout=subprocess.PIPE, text=True
        )
        self.older_url = f"http://127.0.0.1:{self.front.stdout.readline().strip()}"

    def stop(self):
        for process in (self.front, self.process):
            process.terminate()
            process.wait()

    def control(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.base_url}/_emulator{path}", data=data, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def settings(self, **settings):
        self.control("POST", "/settings", settings)

    def post(self, form):
        """The response of /oauth/token, or None."""
        form = {
            "clientId": self.config["clientId"],
            "clientSecret": self.config["clientSecret"],
            **form,
        }
        body = urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(f"{self.base_url}/oauth/token", body, {"Version": "v3"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            return None

    def token(self):
        """A new token of a company, as granted by the server."""
        redirect_uri = self.config["redirectUri"]
        query = {
            "response_type": "code",
            "client_id": self.config["clientId"],
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.config["scopes"]),
        }
        url = f"{self.config['authorizeUrl']}?{urllib.parse.urlencode(query)}"
        consent = self.control("POST", "/consent", {"url": url, "companyId": self.company_id})
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(consent["redirectUrl"]).query)["code"][0]
        return self.post(
            {"grantType": "authorization_code", "code": code, "redirectUri": redirect_uri}
        )

    def takes(self, access_token):
        query = urllib.parse.urlencode(
            {"companyId": self.company_id, "appId": self.app_id, "pageSize": 1}
        )
        headers = {"Authorization": f"Bearer {access_token}", "Version": "v3"}
        request = urllib.request.Request(
            f"{self.base_url}/oauth/installed-locations?{query}", headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=60):
                return True
        except urllib.error.HTTPError:
            return False

    def refreshes(self):
        """The statuses of the token requests since the last reset; 0 for a lost response."""
        requests = self.control("GET", "/requests")["requests"]
        return [request["status"] for request in requests if request["path"] == "/oauth/token"]

    def refresh_tokens(self):
        """Fingerprints of the company's refresh tokens."""
        installations = self.control("GET", "/installations")["installations"]
        return next(
            company["refreshTokens"]
            for company in installations
            if company["resourceId"] == self.company_id
        )

    def task(self, peer, store=None, in_memory=False, through_front=False, **more):
        url = self.base_url if peer.speaks_v3 and not through_front else self.older_url
        limit = {"requests": 1_000_000, "perMs": 10_000, "perDay": 1_000_000_000}
        config = {**self.config, "baseUrl": url, "rateLimit": more.pop("limit", limit)}
        config["store"] = (
            {"kind": "memory"} if in_memory else {"kind": "sqlite", "path": str(store)}
        )
        app = {
            "clientId": config["clientId"],
            "clientSecret": config["clientSecret"],
            "appId": self.app_id,
        }
        task = {"baseUrl": url, **app, "companyId": self.company_id, "config": config, **more}
        return task if in_memory else {**task, "store": str(store)}


@contextlib.contextmanager
def emulator(*options):
    server = Emulator(*options)
    try:
        yield server
    finally:
        server.stop()


@functools.cache
def mongodb():
    """The URL of a server that speaks MongoDB's protocol and runs until this program ends."""
    folder = tempfile.TemporaryDirectory(dir=BUILT)
    command = [MONGODB, "-m", "secantus", "--port", "0", "--standalone", "--log-level", "INFO"]
    log = Path(folder.name, "log")
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--storage-path", folder.name], stdout=output, stderr=subprocess.STDOUT
        )

    def stop():
        server.terminate()
        server.wait()
        folder.cleanup()

    atexit.register(stop)
    while server.poll() is None:
        port = re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text())
        if port:
            return f"mongodb://127.0.0.1:{port[1]}"
        time.sleep(0.05)
    sys.exit(f"MongoDB's stand-in did not start:\n{log.read_text()}")


class Store:
    """The token storage of a peer."""

    numbers = itertools.count()

    def __init__(self, server, peer, folder):
        self.server = server
        self.peer = peer
        self.kind = peer.store
        if self.kind == "mongodb":
            self.path = f"{mongodb()}/store{next(self.numbers)}"
        else:
            name = {"sqlite": "tokens.db", "sessions": "sessions", "file": "token.json"}[self.kind]
            self.path = Path(folder, name)

    def write(self, token, expires_at):
        if self.kind == "sqlite":
            with self.client() as client:
                kept = {name: value for name, value in token.items() if name != "expiresIn"}
                client.tokens_import([{**kept, "expiresAt": expires_at}])
        elif self.kind == "file":
            self.path.write_text(json.dumps({**token, "expiresAt": expires_at}))
        else:
            token = {**token, "expiresIn": (expires_at - now_ms()) // 1000}
            self.peer.answer("write", self.server.task(self.peer, self.path, token=token))

    def refresh_token(self):
        if self.kind == "sqlite":
            with self.client() as client:
                return next(iter(client.tokens_export())).refresh_token
        if self.kind == "file":
            return json.loads(self.path.read_text())["refreshToken"]
        return self.peer.answer("stored", self.server.task(self.peer, self.path))["refreshToken"]

    def client(self):
        os.environ["GHL_OAUTH_LIBRARY"] = str(LIBRARY)
        sys.path.insert(0, str(BINDING))
        import ghl_oauth

        return ghl_oauth.Client.from_config(self.server.task(OURS_PYTHON, self.path)["config"])


@contextlib.contextmanager
def store_of(server, peer):
    with tempfile.TemporaryDirectory(dir=BUILT) as folder:
        yield Store(server, peer, folder)


def now_ms():
    return time.time_ns() // 1_000_000


def table(title, head, rows):
    """Prints a table with a text column followed by numeric columns."""
    rows = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    print(f"\n{title}")
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:])),
        ]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def span(numbers):
    """One number, or the minimum and the maximum."""
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def in_turns(measures):
    """The medians of all measures; each run calls all of them."""
    results = {name: [] for name in measures}
    for _ in range(RUNS):
        for name, measure in measures.items():
            results[name].append(measure())
    return {name: statistics.median(values) for name, values in results.items()}


# ---- The questions -------------------------------------------------------------------------------


def live(_):
    """A live token from memory."""
    peers = {
        OURS_C: 200_000,
        GO: 200_000,
        VENDOR_TYPESCRIPT: 20_000,
        OURS_PYTHON: 20_000,
        VENDOR_PYTHON: 20_000,
    }
    with emulator("--rate-limit", "off") as server:

        def measure(peer, calls):
            token = {**server.token(), "expiresAt": now_ms() + 24 * HOUR_MS}
            return peer.answer("live", server.task(peer, in_memory=True, token=token, calls=calls))[
                "us"
            ]

        medians = in_turns(
            {peer: lambda p=peer, c=calls: measure(p, c) for peer, calls in peers.items()}
        )
    rows = [
        [p.name, f"{us * 1e3:,.0f} ns", f"{us / medians[OURS_C]:.1f}"] for p, us in medians.items()
    ]
    table("A live token held in memory", ["", "per call", "ours in C = 1"], rows)


def refresh(_):
    """A refresh over loopback; each peer manages its own connection."""
    calls = 300
    with emulator("--rate-limit", "off") as server:

        def measure(peer, through_front, store=None):
            token = {**server.token(), "expiresAt": now_ms() + 24 * HOUR_MS}
            where = {"in_memory": True} if store is None else {"store": store.path}
            task = server.task(peer, **where, through_front=through_front, token=token, calls=calls)
            if peer is not GHL_SDK:
                return peer.answer("refresh", task)["us"]
            # It refreshes only as part of a request: a request with a refresh minus one without.
            without = peer.answer("refresh", task)["us"]
            server.settings(expiresIn={"value": 1})
            both = peer.answer("refresh", {**task, "token": {**token, "expiresAt": 0}})["us"]
            server.settings(expiresIn="truth")
            return both - without

        measures = {}
        with contextlib.ExitStack() as stack:
            for peer in PEERS:
                store = stack.enter_context(store_of(server, peer))
                if peer.speaks_v3:
                    measures[peer, "direct"] = lambda p=peer: measure(p, False)
                measures[peer, "front"] = lambda p=peer: measure(p, True)
                measures[peer, "durable"] = lambda p=peer, s=store: measure(p, True, s)
            medians = in_turns(measures)
    rows = []
    for peer in PEERS:
        row = [peer.name]
        for where in ("direct", "front", "durable"):
            row.append(f"{medians[peer, where]:,.0f} µs" if (peer, where) in medians else "-")
            if where != "direct":
                row.append(f"{medians[peer, where] / medians[OURS_C, where]:.2f}")
        rows.append(row)
    head = [
        "",
        "direct",
        "through the front",
        "ours in C = 1",
        "the same, durable",
        "ours in C = 1",
    ]
    table("A refresh on loopback", head, rows)


def stampede(_):
    """Concurrent callers on one expired token: processes that share a store, and one process."""
    for processes, callers in ((2, 1), (8, 8), (1, 64)):
        rows = []
        for window in (REUSE_WINDOW, 0):
            with emulator("--rate-limit", "off") as server:
                server.settings(reuseWindowSeconds=window)
                outcomes = {peer: [] for peer in WITH_MONGODB}
                for _ in range(3):
                    for peer in WITH_MONGODB:
                        outcomes[peer].append(stampede_of(server, peer, processes, callers))
            for peer, runs in outcomes.items():
                sent, granted, served, connected, took = zip(*runs)
                kept = {3: "yes", 0: "no"}.get(sum(connected), f"{sum(connected)} of 3 times")
                took = f"{statistics.median(took):.0f} ms"
                rows.append(
                    [
                        f"{peer.name}, reuse {window or 'off'}",
                        span(sent),
                        span(granted),
                        span(served),
                        kept,
                        took,
                    ]
                )
        head = [
            "",
            "requests",
            "granted",
            "served",
            "connected after",
            "until all are answered",
        ]
        table(
            f"Processes: {processes}, callers in each: {callers}, one expired token, a server that "
            "takes 50 ms",
            head,
            rows,
        )


def stampede_of(server, peer, processes, callers):
    with expired_store(server, peer) as store:
        server.settings(latencyMs=50)
        task = server.task(peer, store.path, callers=callers)
        running = [peer.start("ask", task) for _ in range(processes)]
        for process in running:
            ready(process)
        server.control("DELETE", "/requests")
        for process in running:
            go(process)
        answers = [next_answer(process) for process in running]
        for process in running:
            finish(process)
        statuses = server.refreshes()
        server.settings(latencyMs=0)
        served = sum(served_by(server, answer) for answer in answers)
        granted = sum(status == 200 for status in statuses)
        return (
            len(statuses),
            granted,
            served,
            connected(server, store),
            max(answer["ms"] for answer in answers),
        )


def ready(process):
    for line in process.stdout:
        if line == "ready\n":
            return
    sys.exit(f"{process.args[:3]} did not start")


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def served_by(server, answer):
    """The number of callers that got a token accepted by the API."""
    if "passed" in answer:
        return answer["passed"]
    taken = {token: server.takes(token) for token in set(answer["tokens"])}
    return sum(taken[token] for token in answer["tokens"])


def connected(server, store):
    """Whether the stored refresh token works after the replay window."""
    server.control("POST", "/clock", {"advanceSeconds": 2 * REUSE_WINDOW})
    granted = server.post({"grantType": "refresh_token", "refreshToken": store.refresh_token()})
    return granted is not None


def lost(_):
    """The server grants a refresh, and its response is lost."""
    rows = []
    with emulator("--rate-limit", "off") as server:
        for peer in WITH_MONGODB:
            row = [peer.name]
            for seconds in (0, 2 * REUSE_WINDOW):
                with expired_store(server, peer) as store, fault(server, "replyLost"):
                    process = peer.start("ask", server.task(peer, store.path, callers=1))
                    ready(process)
                    words = [token_or_none(server, process)]
                    server.control("POST", "/clock", {"advanceSeconds": seconds})
                    words.append(token_or_none(server, process))
                    finish(process)
                    row += [*words[len(row) > 1 :], "yes" if connected(server, store) else "no"]
            rows.append(row)
    head = ["", "first call", "again at once", "connected", "again after a minute", "connected"]
    table("The reply to a refresh is lost", head, rows)


def crash(_):
    """The server grants a refresh, and the process is killed before it can save the new token."""
    rows = []
    with emulator("--rate-limit", "off") as server:
        for peer in WITH_MONGODB:
            row = [peer.name]
            for seconds in (0, 2 * REUSE_WINDOW):
                with expired_store(server, peer) as store:
                    task = server.task(peer, store.path, callers=1)
                    before = server.refresh_tokens()
                    with fault(server, "stall", stage="afterProcessing"):
                        process = peer.start("ask", task)
                        ready(process)
                        go(process)
                        while server.refresh_tokens() == before:
                            time.sleep(0.01)
                        process.kill()
                        process.communicate()
                    server.control("POST", "/clock", {"advanceSeconds": seconds})
                    process = peer.start("ask", task)
                    ready(process)
                    row.append(token_or_none(server, process))
                    finish(process)
                    row.append("yes" if connected(server, store) else "no")
            rows.append(row)
    head = ["", "restarted at once", "connected", "restarted after a minute", "connected"]
    table("A process is killed between the grant and the save", head, rows)


@contextlib.contextmanager
def expired_store(server, peer):
    with store_of(server, peer) as store:
        store.write(server.token(), now_ms() - HOUR_MS)
        server.control("POST", "/tokens/expire", {})
        yield store


@contextlib.contextmanager
def fault(server, kind, **parameters):
    """A fault of the next refresh."""
    rule = {"endpoint": "token", "grantType": "refresh_token", "count": 1}
    server.control("POST", "/faults", {"kind": kind, **rule, **parameters})
    try:
        yield
    finally:
        server.control("DELETE", "/faults")


def token_or_none(server, process):
    """The outcome of one caller's next call."""
    go(process)
    return "token" if served_by(server, next_answer(process)) == 1 else "none"


def mint(arguments):
    """Tokens for many locations under the rate limit, a twentieth of the API's window."""
    requests, per_ms = 100, 500
    count = arguments.locations
    rows = []
    with emulator("--locations", str(count)) as server:
        server.settings(rateLimit={"requests": requests, "perMs": per_ms, "perDay": 1_000_000})
        for latency in (0, 5):
            for peer in (OURS_C, VENDOR_PYTHON, VENDOR_TYPESCRIPT, GHL_SDK):
                with store_of(server, peer) as store:
                    token = {**server.token(), "expiresAt": now_ms() + 24 * HOUR_MS}
                    more = {"token": token, "locations": server.location_ids, "windowMs": per_ms}
                    limit = {"requests": requests, "perMs": per_ms}
                    task = server.task(peer, store.path, limit=limit, **more)
                    time.sleep(per_ms / 1e3)
                    server.control("DELETE", "/requests")
                    server.settings(latencyMs=latency)
                    report = peer.answer("mint", task)
                    server.settings(latencyMs=0)
                statuses = [
                    request["status"] for request in server.control("GET", "/requests")["requests"]
                ]
                refused = statuses.count(429)
                dictated = per_ms / 1e3 * ((len(statuses) - refused - 1) // requests)
                name = peer.name if peer is OURS_C else f"{peer.name}, a loop"
                ratio = f"{report['seconds'] / dictated:.2f}"
                rows.append(
                    [
                        f"{name}, {latency} ms",
                        report["minted"],
                        refused,
                        f"{report['seconds']:.2f} s",
                        ratio,
                    ]
                )
    head = ["", "minted", "refused (429)", "time", "the limit's = 1"]
    table(
        f"{count} locations minted, {requests} requests in {per_ms} ms, a server that takes 0 or 5 "
        "ms",
        head,
        rows,
    )


def store(_):
    """A durable save, and a page of many records."""
    count = 10_000
    with emulator("--rate-limit", "off") as server, store_of(server, OURS_C) as store:
        token = {**server.token(), "expiresAt": now_ms() + 24 * HOUR_MS}
        names = {"userType": "Location", "refreshToken": None}
        with store.client() as client:
            client.tokens_import(
                [{**token, **names, "locationId": f"location{i}"} for i in range(count)]
            )
        medians = in_turns(
            {
                question: lambda q=question: OURS_C.answer(
                    q, server.task(OURS_C, store.path, token=token, calls=300)
                )["us"]
                for question in ("save", "list")
            }
        )
    rows = [
        ["a durable save", f"{medians['save']:,.0f} µs"],
        [f"a page of 100 of {count:,}", f"{medians['list']:,.0f} µs"],
    ]
    table(
        "The store of ghl-oauth, SQLite",
        ["", ""],
        rows,
    )


def start(_):
    """A process that creates a client and prints a live token from its store."""
    with emulator("--rate-limit", "off") as server, contextlib.ExitStack() as stack:
        commands = {}
        for peer in PEERS:
            store = stack.enter_context(store_of(server, peer))
            store.write(server.token(), now_ms() + 20 * HOUR_MS)
            commands[peer.name] = [
                *peer.command,
                "start",
                json.dumps(server.task(peer, store.path)),
            ]
        for statement in ("pass", "import ghl_oauth", "import highlevel"):
            commands[f"python: {statement}"] = [str(PYTHON), "-c", statement]
        commands["node: nothing"] = ["node", "-e", "0"]
        commands["node: require of the SDK"] = ["node", "-e", "require('@gohighlevel/api-client')"]
        runs = {name: [] for name in commands}
        for _ in range(11):
            for name, command in commands.items():
                runs[name].append(process_of(command))
    sizes = installed()
    rows = []
    for name, measured in runs.items():
        milliseconds, megabytes = (statistics.median(column) for column in zip(*measured))
        rows.append([name, f"{milliseconds:.1f} ms", f"{megabytes:.1f} MB", sizes.get(name, "")])
    table(
        "A process that prints a live token from its store",
        ["", "time", "memory", "installed"],
        rows,
    )


def process_of(command):
    """Milliseconds, and the peak in megabytes."""
    launched = subprocess.run(
        [BUILT / "launch", *command], capture_output=True, text=True, env=ENVIRONMENT
    )
    if launched.returncode != 0:
        sys.exit(f"{command[:3]} failed: {launched.stderr}")
    usage = json.loads(launched.stdout)
    return usage["ms"], usage["kilobytes"] / 1e3


def installed():
    """The dependencies of each peer, without the C library and the language's standard library."""

    def megabytes(paths):
        files = [
            file
            for path in paths
            for file in ([path] if path.is_file() else path.rglob("*"))
            if file.is_file()
        ]
        return sum(file.stat().st_size for file in files if "__pycache__" not in file.parts) / 1e6

    def stripped(program):
        copy = BUILT / "stripped"
        subprocess.run(["strip", "-o", copy, program], check=True)
        return copy.stat().st_size / 1e6

    def libraries(program):
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        found = {Path(path).resolve() for path in re.findall(r"=> (/\S+)", listed)}
        return [
            path
            for path in found
            if not re.match(r"(libc|libm|libgcc_s|libdl|libpthread)[.-]", path.name)
        ]

    own = {"pip", "setuptools", "pkg_resources", "_distutils_hack"}
    packages = next((BUILT / "python" / "lib").glob("python*/site-packages"))
    packages = [path for path in packages.iterdir() if path.name.split("-")[0] not in own]
    distributions = [path for path in packages if path.suffix == ".dist-info"]
    modules = BUILT / "typescript" / "node_modules"
    lock = json.loads((HERE / "package-lock.json").read_text())
    loaded = libraries(BUILT / "libcurl")
    sizes = {
        OURS_C.name: f"1 library, {megabytes([LIBRARY]):.1f} MB",
        OURS_PYTHON.name: f"1 package, {megabytes([LIBRARY, BINDING / 'ghl_oauth']):.1f} MB",
        VENDOR_PYTHON.name: f"{len(distributions)} packages, {megabytes(packages):.1f} MB",
        VENDOR_TYPESCRIPT.name: (
            f"{len(lock['packages']) - 1} packages, {megabytes([modules]):.1f} MB"
        ),
        GHL_SDK.name: f"1 program, {stripped(RUST / 'ghl-sdk-peer'):.1f} MB",
        GO.name: f"1 program, {stripped(BUILT / 'oauth2'):.1f} MB",
        LIBCURL.name: f"{len(loaded)} libraries, {megabytes(loaded):.1f} MB",
    }
    (BUILT / "stripped").unlink()
    return sizes


QUESTIONS = [live, refresh, stampede, lost, crash, mint, store, start]


def main():
    names = [question.__name__ for question in QUESTIONS]
    parser = argparse.ArgumentParser(description="Compares this library with its alternatives.")
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(names)}; default: all"
    )
    parser.add_argument("--locations", type=int, default=1_000, help="number of locations to mint")
    arguments = parser.parse_args()
    unknown = set(arguments.questions) - set(names)
    if unknown:
        parser.error(f"unknown question {', '.join(sorted(unknown))}")
    if not (BUILT / "ours").exists() or shutil.which("node") is None:
        sys.exit("run benches/peers/setup first")
    for question in QUESTIONS:
        if not arguments.questions or question.__name__ in arguments.questions:
            question(arguments)


if __name__ == "__main__":
    main()
