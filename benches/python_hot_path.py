"""The cost of a live token in Python: thread CPU time of `client.access_token`, median of 21 runs.

    python3 benches/python_hot_path.py [PYTHON …]

Each PYTHON must have the package; default: this interpreter. If it is not installed, set PYTHONPATH
and GHL_OAUTH_LIBRARY. If a PYTHON also has the vendor's SDK (gohighlevel-api-client==3.0.0), it is
measured as well: the lookup of a company token in its in-memory session storage, which each of its
calls does. The baseline is an empty call through ctypes, `ghl_abi_version`.
"""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import asyncio, json, statistics, sys, threading, time
import ghl_oauth
from ghl_oauth._library import library

CALLS, RUNS, TOKEN = 20_000, 21, "t" * 900
company = "company000000000001"
session = {"accessToken": TOKEN, "userType": "Company", "companyId": company, "expiresIn": 86_399}

def run(ask):
    began = time.thread_time()
    for _ in range(CALLS):
        ask()
    return (time.thread_time() - began) / CALLS * 1e9

def median(run):
    return statistics.median(run() for _ in range(RUNS))

def vendor():
    try:
        from highlevel import HighLevel
        from highlevel.storage import MemorySessionStorage
    except ImportError:
        return None
    storage = MemorySessionStorage()
    sdk = HighLevel(client_id="app-1", client_secret="secret", session_storage=storage)

    async def ask():
        began = time.thread_time()
        for _ in range(CALLS):
            await sdk.get_token_for_security(["Agency-Access-Only"], query={"companyId": company})
        return (time.thread_time() - began) / CALLS * 1e9

    async def all_runs():
        await storage.set_session(company, session)
        return statistics.median([await ask() for _ in range(RUNS)])

    return asyncio.run(all_runs())

with ghl_oauth.Client("app-1", "secret") as client:
    client.tokens_import([session])
    assert client.access_token(company) == TOKEN
    access_token = client.access_token
    report = {
        "python": sys.version.split()[0],
        "floor": median(lambda: run(library.ghl_abi_version)),
        "ours": median(lambda: run(lambda: access_token(company))),
        "nothing": median(lambda: run(lambda: None)),
    }
report["vendor"] = vendor()
print(json.dumps(report))
"""


def main() -> None:
    """Measures each given interpreter."""
    print(f"{'Python':<10} {'floor':>10} {'ours':>10} {'vendor':>10} {'ratio':>7}")
    for python in sys.argv[1:] or [sys.executable]:
        run = subprocess.run([python, "-c", PROGRAM], stdout=subprocess.PIPE, check=True)
        took = json.loads(run.stdout)
        # Subtracts the loop and its lambda; the vendor's loop has no lambda.
        ours = took["ours"] - took["nothing"]
        line = f"{took['python']:<10} {took['floor']:>7.0f} ns {ours:>7.0f} ns"
        if took["vendor"] is not None:
            line += f" {took['vendor']:>7.0f} ns {ours / took['vendor']:>7.2f}"
        print(line)


if __name__ == "__main__":
    main()
