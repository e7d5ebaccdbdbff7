#!/usr/bin/env python3
"""What a call through the library costs beside the same call by libcurl and cJSON; see benches/README.md."""

import json
import pathlib
import re
import statistics
import subprocess
import sys
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = ROOT / "target" / "release"
BUILT = ROOT / "target" / "bench-request"
PROGRAMS = {"library": ["-lghl_oauth", f"-Wl,-rpath,{TARGET}"], "libcurl": ["-lcurl", "-lcjson"]}
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
        subprocess.run(
            [
                "cc",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
                source,
                "-o",
                BUILT / name,
                f"-I{ROOT / 'include'}",
                f"-L{TARGET}",
                *libraries,
            ],
            check=True,
        )


def post(url, body, content_type):
    request = urllib.request.Request(url, body.encode(), {"Content-Type": content_type, "Version": "v3"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


class Emulator:
    """The emulator, its rate limit lifted, and what it needs to know of the app."""

    def __init__(self):
        command = [TARGET / "ghl-oauth-emulator", "--port", "0", "--rate-limit", "off", "--locations", "1"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines = iter(self.process.stdout.readline, "")
        text = ""
        for line in lines:
            text += line
            if line.startswith("Company "):
                break
        self.location_id = text.split()[-1]
        self.config = json.loads(text[text.index("{") : text.rindex("}") + 1])
        self.config["rateLimit"] = {"requests": 1_000_000, "perMs": 10_000, "perDay": 1_000_000_000}

    def token(self):
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
        decision = {"url": f"{config['authorizeUrl']}?{query}", "locationId": self.location_id}
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

    def run(self, program, call, calls, *under):
        """One run of a program; answers with the median of its calls in microseconds, and with its stderr."""
        command = [
            *under,
            BUILT / program,
            call,
            str(calls),
            json.dumps(self.config),
            self.location_id,
            json.dumps(self.token()),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{program}: {done.stderr}")
        return float(done.stdout), done.stderr


def instructions(emulator, program, call):
    """Per call; what comes before and after the calls cancels out."""
    totals = []
    for calls in (FEW, MANY):
        profile = BUILT / f"callgrind.{program}.{call}.{calls}"
        callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}"]
        _, report = emulator.run(program, call, calls, *callgrind)
        totals.append(int(re.search(r"Collected : (\d+)", report)[1]))
    return (totals[1] - totals[0]) / (MANY - FEW)


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
                    times[program].append(emulator.run(program, call, CALLS)[0])
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
