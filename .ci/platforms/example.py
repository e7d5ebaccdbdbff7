"""Runs examples/c/quickstart.c, built for a platform, against the emulator."""

import contextlib
import json
import re
import subprocess
import urllib.request

from frame import Failed


@contextlib.contextmanager
def emulator(command, **options):
    """Runs the emulator program. Gives its URL."""
    process = subprocess.Popen(
        [str(word) for word in command] + ["--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        greeting = process.stdout.readline()
        found = re.search(r"http://\S+", greeting)
        if not found:
            raise Failed(f"the emulator did not start: {greeting!r}")
        yield found.group().rstrip("/")
    finally:
        process.kill()
        process.wait()


def control(base, path, body=None):
    """A request to the emulator's control API."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{base}/_emulator{path}", content, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def quickstart(program, base, store=None, **options):
    """Connects the app, as a person does. The program must print a token for each location.

    `store` is the configuration's; by default the program keeps its tokens in memory.
    """
    app = control(base, "")
    configuration = app["configuration"] | ({"store": store} if store else {})
    command = [*(str(word) for word in program), json.dumps(configuration)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **options) as process:
        link = process.stdout.readline().strip().rpartition(": ")[2]
        (company,) = app["companies"]
        consent = control(base, "/consent", {"url": link, "companyId": company["id"]})
        output, _ = process.communicate(consent["redirectUrl"] + "\n")
    if process.returncode or f"connected: Company {company['id']}" not in output:
        raise Failed(f"{command[0]}: status {process.returncode}\n{link}\n{output}")
    without = [location for location in company["locationIds"] if location not in output]
    if without:
        raise Failed(f"{command[0]} printed no token of {without}\n{output}")
    return len(company["locationIds"])
