#!/usr/bin/env python3
"""Compares the library's calls with the same calls by libcurl and cJSON; see benches/README.md.

usage: benches/request.py [--quick] [one] [threads] [tls]
"""

import http.client
import json
import pathlib
import statistics
import subprocess
import sys
import urllib.parse
import urllib.request

import counting

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "target" / "release"
BUILT = ROOT / "target" / "bench-request"
PROGRAMS = {
    "library": ["-lghl_oauth"],
    "libcurl": ["-lcurl", "-lcjson"],
    "server": ["-lssl", "-lcrypto"],
}
BOTH = ("library", "libcurl")
QUICK = "--quick" in sys.argv
FEW, MANY = (20, 120) if QUICK else (100, 600)
CALLS, RUNS = (500, 5) if QUICK else (3000, 7)
HANDSHAKES = CALLS // 10
THREADS = 8
CERTIFICATE = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=bench-ca
    -addext keyUsage=keyCertSign -keyout ca.key -out ca.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bench
    -keyout server.key -out server.csr
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30
    -extfile names -out server.pem
"""


def build_ours():
    """Builds the library and the emulator separately: one build would unify crate features."""
    cargo = ["cargo", "--quiet"]
    library = [*cargo, "rustc", "--release", "-p", "ghl-oauth", "--lib", "--crate-type=cdylib"]
    subprocess.run(library, cwd=ROOT, check=True)
    subprocess.run([*cargo, "build", "--release", "-p", "ghl-oauth-emulator"], cwd=ROOT, check=True)


def build():
    """Builds the library, the emulator and the programs."""
    build_ours()
    BUILT.mkdir(exist_ok=True)
    for name, libraries in PROGRAMS.items():
        source = ROOT / "benches" / "request" / f"{name}.c"
        counting.compile_c(source, BUILT / name, ROOT / "include", TARGET, "-pthread", *libraries)


def post(url, body, content_type, headers=()):
    """The status line, headers and body of a response."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request(
        "POST", parts.path, body, {"Content-Type": content_type, "Version": "v3", **dict(headers)}
    )
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit(f"{url}: {text.decode()}")
    return answer, json.loads(text)


class Emulator:
    """The emulator without a rate limit, and the credentials of its app."""

    def __init__(self, program=TARGET / "ghl-oauth-emulator"):
        command = [program, "--port", "0", "--rate-limit", "off", "--locations", str(MANY)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        text = ""
        for line in iter(self.process.stdout.readline, ""):
            text += line
            if line.startswith("Control:"):
                break
        self.config = json.loads(text[text.index("{") : text.rindex("}") + 1])
        self.config["rateLimit"] = {"requests": 1_000_000, "perMs": 10_000, "perDay": 1_000_000_000}
        with urllib.request.urlopen(f"{self.config['baseUrl']}/_emulator") as answer:
            company = json.load(answer)["companies"][0]
        self.company_id = company["id"]
        self.location_ids = company["locationIds"]

    def control(self, endpoint, document):
        url = f"{self.config['baseUrl']}/_emulator/{endpoint}"
        return post(url, json.dumps(document), "application/json")[1]

    def grant(self, location_id=None):
        """A token of a location or of the company, and the response that granted it."""
        config = self.config
        query = urllib.parse.urlencode(
            {
                "response_type": "code",
                "client_id": config["clientId"],
                "redirect_uri": config["redirectUri"],
                "scope": " ".join(config["scopes"]),
            }
        )
        whose = {"locationId": location_id} if location_id else {"companyId": self.company_id}
        consent = self.control("consent", {"url": f"{config['authorizeUrl']}?{query}", **whose})
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(consent["redirectUrl"]).query)["code"][0]
        form = {
            "clientId": config["clientId"],
            "clientSecret": config["clientSecret"],
            "grantType": "authorization_code",
            "code": code,
            "redirectUri": config["redirectUri"],
            "userType": "Location" if location_id else "Company",
        }
        return self.ask("token", form)

    def ask(self, endpoint, form, headers=()):
        url = f"{self.config['baseUrl']}/oauth/{endpoint}"
        answer, token = post(
            url, urllib.parse.urlencode(form), "application/x-www-form-urlencoded", headers
        )
        return token, answer

    def tokens(self, threads, refresh_tokens=True):
        """The token of the company, and the tokens of the given number of locations."""
        tokens = [self.grant()[0]] + [
            self.grant(location_id)[0] for location_id in self.location_ids[:threads]
        ]
        if not refresh_tokens:
            for token in tokens[1:]:
                del token["refreshToken"]
        return {"tokens": tokens}

    def worked(self):
        """Its CPU time so far, in microseconds."""
        threads = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1000


class Server:
    """A server that sends prepared responses of the emulator."""

    def __init__(self, emulator, mode):
        folder = BUILT / mode
        folder.mkdir(exist_ok=True)
        token, granted = emulator.grant(emulator.location_ids[0])
        bearer = {"Authorization": f"Bearer {emulator.grant()[0]['accessToken']}"}
        form = {"companyId": emulator.company_id, "locationId": emulator.location_ids[0]}
        minted, minting = emulator.ask("location-token", form, bearer)
        # One response for all locations.
        del minted["locationId"]
        for name, body, answer in (("token", token, granted), ("location-token", minted, minting)):
            self.write(folder / name, body, answer, mode)
        self.write(folder / "location", {"location": {"id": "one"}}, granted, mode)
        command = [BUILT / "server", folder, mode]
        self.config = {**emulator.config, "timeouts": {"totalMs": 30_000}}
        if mode != "plain":
            command += certificate()
            self.config["http"] = {"caBundlePath": str(BUILT / "ca.pem")}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        port = self.process.stdout.readline().strip()
        self.config["baseUrl"] = f"{'http' if mode == 'plain' else 'https'}://127.0.0.1:{port}"

    @staticmethod
    def write(path, body, answer, mode):
        text = json.dumps(body, separators=(",", ":"))
        headers = [
            (name, value) for name, value in answer.getheaders() if name.lower() != "content-length"
        ]
        headers.append(("content-length", str(len(text))))
        if mode in ("resumed", "full"):
            headers.append(("connection", "close"))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        path.write_bytes(f"HTTP/1.1 200 OK\r\n{head}\r\n{text}".encode())

    def figures(self):
        """The connections and resumed TLS sessions so far, and the CPU time in microseconds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [int(number) for number in self.process.stdout.readline().split()]

    def worked(self):
        return self.figures()[2]


def certificate():
    """A CA and the server certificate, created once."""
    if not (BUILT / "server.pem").exists():
        (BUILT / "names").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        for command in CERTIFICATE.strip().replace("\n    ", " ").split("\n"):
            subprocess.run(command.split(), cwd=BUILT, check=True, capture_output=True)
    return [BUILT / "server.pem", BUILT / "server.key"]


class Bench:
    """One kind of call against one server, by both programs."""

    def __init__(self, emulator, call, server=None, threads=1, calls=CALLS, by_curl=None):
        self.emulator, self.call, self.server, self.threads, self.calls = (
            emulator,
            call,
            server,
            threads,
            calls,
        )
        self.calls_of = {"library": call, "libcurl": by_curl or call}
        self.tokens = None

    def command(self, program, calls):
        # The server with prepared responses accepts any token.
        if self.tokens is None or self.server is None:
            self.tokens = json.dumps(self.emulator.tokens(self.threads, self.call != "mint-kept"))
        config = json.dumps((self.server or self.emulator).config)
        counts = (str(calls), str(self.threads))
        ids = (self.emulator.company_id, *self.emulator.location_ids)
        return [BUILT / program, self.calls_of[program], *counts, config, self.tokens, *ids]

    def run(self, program):
        """One run of a program: its output, and the server's CPU time per call."""
        command, server = self.command(program, self.calls), self.server or self.emulator
        before = server.worked()
        done = subprocess.run(command, capture_output=True, text=True)
        worked = (server.worked() - before) / self.calls / self.threads
        if done.returncode != 0:
            sys.exit(f"{program}: {done.stderr}")
        return [float(figure) for figure in done.stdout.split()] + [worked]

    def instructions(self, program):
        """Per call."""
        few, many = (FEW, MANY) if self.threads == 1 else (FEW // 4, MANY // 4)
        profile = BUILT / f"callgrind.{program}.{self.call}"
        return (
            counting.instructions(lambda calls: self.command(program, calls), few, many, profile)
            / self.threads
        )

    def measure(self, name):
        counts = {program: self.instructions(program) for program in BOTH}
        # Interleaved, so that other programs affect both alike.
        runs = {program: [] for program in BOTH}
        for _ in range(RUNS):
            for program in BOTH:
                runs[program].append(self.run(program))
        rows = {
            program: [counts[program], *map(statistics.median, zip(*runs[program]))]
            for program in BOTH
        }
        for program in BOTH:
            show(name, program, "%12.0f %8.1f %8.1f %8.1f %8.1f" % tuple(rows[program]))
        ratios = [ours / theirs for ours, theirs in zip(rows["library"], rows["libcurl"])]
        show(name, "ratio", "%12.2f %8.2f %8.2f %8.2f" % tuple(ratios[:4]))
        return rows


def show(name, program, figures):
    print(f"{name:22} {program:8} {figures}", flush=True)


def one_thread(emulator):
    Bench(emulator, "request").measure("request")
    Bench(emulator, "refresh").measure("refresh")
    Bench(emulator, "refresh", by_curl="refresh-unescaped").measure("refresh, unescaped")
    Bench(emulator, "mint").measure("mint")
    emulator.control("settings", {"locationRefreshTokens": False})
    Bench(emulator, "mint-kept").measure("mint, kept")
    emulator.control("settings", {"locationRefreshTokens": True})
    Bench(emulator, "mint-many", calls=MANY, by_curl="mint").measure("mint, many")


def threads(emulator):
    server = Server(emulator, "plain")
    for call in ("refresh", "mint"):
        times = [
            Bench(emulator, call, server, number, CALLS // number).measure(
                f"{call}, {number} thread{'s'[: number - 1]}"
            )
            for number in (1, THREADS)
        ]
        for program in BOTH:
            show(
                call,
                program,
                f"{times[0][program][2] / times[1][program][2]:.2f} times the calls by {THREADS} "
                "threads",
            )


def tls(emulator):
    for mode in ("kept", "resumed", "full"):
        server = Server(emulator, mode)
        Bench(emulator, "refresh", server, calls=CALLS if mode == "kept" else HANDSHAKES).measure(
            f"TLS, {mode}"
        )
        connections, resumed, _ = server.figures()
        show(
            f"TLS, {mode}",
            "server",
            f"{connections} connections, {resumed} of them resumed a session",
        )


def main():
    sections = {"one": one_thread, "threads": threads, "tls": tls}
    wanted = [word for word in sys.argv[1:] if word != "--quick"] or list(sections)
    build()
    print(
        f"{'':22} {'':8} {'instructions':>12} {'median':>8} {'by all':>8} {'client':>8} "
        f"{'server':>8} µs a call"
    )
    emulator = Emulator()
    try:
        for name in wanted:
            sections[name](emulator)
    finally:
        emulator.process.terminate()


if __name__ == "__main__":
    main()
