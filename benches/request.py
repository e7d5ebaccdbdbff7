#!/usr/bin/env python3
"""What a call through the library costs beside the same call by libcurl and cJSON; see benches/README.md."""

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
PROGRAMS = {"library": ["-lghl_oauth"], "libcurl": ["-lcurl", "-lcjson"]}
FEW, MANY = 100, 600
CALLS, RUNS = 3000, 7


def build():
    """Builds the library as it ships, the emulator and both programs."""
    cargo = ["cargo", "build", "--quiet", "--release"]
    # One after the other: built together, they would share the features of their crates.
    subprocess.run([*cargo, "-p", "ghl-oauth", "--lib"], cwd=ROOT, check=True)
    subprocess.run([*cargo, "-p", "ghl-oauth-emulator"], cwd=ROOT, check=True)
    BUILT.mkdir(exist_ok=True)
    for name, libraries in PROGRAMS.items():
        source = ROOT / "benches" / "request" / f"{name}.c"
        counting.compile_c(source, BUILT / name, ROOT / "include", TARGET, *libraries)


def post(url, body, content_type):
    request = urllib.request.Request(url, body.encode(), {"Content-Type": content_type, "Version": "v3"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


class Emulator:
    """The emulator, its rate limit lifted, and what it needs to know of the app."""

    def __init__(self, program=TARGET / "ghl-oauth-emulator"):
        command = [program, "--port", "0", "--rate-limit", "off", "--locations", "1"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        text = ""
        for line in iter(self.process.stdout.readline, ""):
            text += line
            if line.startswith("Control:"):
                break
        self.config = json.loads(text[text.index("{") : text.rindex("}") + 1])
        self.config["rateLimit"] = {"requests": 1_000_000, "perMs": 10_000, "perDay": 1_000_000_000}
        with urllib.request.urlopen(f"{self.config['baseUrl']}/_emulator") as answer:
            self.location_ids = json.load(answer)["companies"][0]["locationIds"]

    def token(self, location_id):
        """A location's token of its own, as the server grants it."""
        config = self.config
        query = urllib.parse.urlencode(
            {
                "response_type": "code",
                "client_id": config["clientId"],
                "redirect_uri": config["redirectUri"],
                "scope": " ".join(config["scopes"]),
            }
        )
        decision = {"url": f"{config['authorizeUrl']}?{query}", "locationId": location_id}
        consent = post(f"{config['baseUrl']}/_emulator/consent", json.dumps(decision), "application/json")
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(consent["redirectUrl"]).query)["code"][0]
        form = {
            "clientId": config["clientId"],
            "clientSecret": config["clientSecret"],
            "grantType": "authorization_code",
            "code": code,
            "redirectUri": config["redirectUri"],
            "userType": "Location",
        }
        return post(
            f"{config['baseUrl']}/oauth/token", urllib.parse.urlencode(form), "application/x-www-form-urlencoded"
        )

    def command(self, program, call, calls):
        location_id = self.location_ids[0]
        config, token = json.dumps(self.config), json.dumps(self.token(location_id))
        return [BUILT / program, call, str(calls), config, location_id, token]

    def run(self, program, call, calls):
        """One run of a program; answers with the median of its calls in microseconds."""
        done = subprocess.run(self.command(program, call, calls), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{program}: {done.stderr}")
        return float(done.stdout)


def instructions(emulator, program, call):
    """Per call."""
    profile = BUILT / f"callgrind.{program}.{call}"
    return counting.instructions(lambda calls: emulator.command(program, call, calls), FEW, MANY, profile)


def main():
    build()
    emulator = Emulator()
    try:
        for call in ("request", "refresh"):
            counts = {program: instructions(emulator, program, call) for program in PROGRAMS}
            # In turns, so that what else goes on meets both.
            times = {program: [] for program in PROGRAMS}
            for _ in range(RUNS):
                for program in PROGRAMS:
                    times[program].append(emulator.run(program, call, CALLS))
            medians = {program: statistics.median(times[program]) for program in PROGRAMS}
            for program in PROGRAMS:
                spread = f"{min(times[program]):.1f} to {max(times[program]):.1f}"
                print(
                    f"{call:8} {program:8} {counts[program]:10,.0f} instructions {medians[program]:8.1f} µs ({spread})"
                )
            ratios = [measured["library"] / measured["libcurl"] for measured in (counts, medians)]
            print(f"{call:8} {'ratio':8} {ratios[0]:10.2f} {'':12} {ratios[1]:8.2f}", flush=True)
    finally:
        emulator.process.terminate()


if __name__ == "__main__":
    main()
