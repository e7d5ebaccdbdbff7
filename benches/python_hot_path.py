"""The cost of a live token in Python: thread CPU time of `client.access_token`, median of 21 runs.

    python3 benches/python_hot_path.py [PYTHON …]

Each PYTHON must have the package; default: this interpreter. If it is not installed, set PYTHONPATH
and GHL_OAUTH_LIBRARY. If a PYTHON also has the vendor's SDK (gohighlevel-api-client==3.0.0), it is
measured as well: the lookup of a company token in its in-memory session storage, which each of its
calls does.

The floors: an empty call through ctypes, `ghl_abi_version`; and what no binding with ctypes can
avoid, the call of `ghl_access_token_try_into` with prepared arguments and the string made of its
buffer.
"""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import asyncio, ctypes, json, statistics, sys, threading, time
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
    try_into, pointer = library["ghl_access_token_try_into"], client._open()._pointer.value
    buffer, length = ctypes.create_string_buffer(2048), ctypes.c_size_t(2048)
    arguments = (ctypes.c_void_p.from_param(pointer), company.encode(),
                 ctypes.byref(buffer), ctypes.byref(length))
    assert try_into(*arguments) == 0 and length.value == len(TOKEN) + 1

    def least():
        try_into(*arguments)
        return buffer[:length.value - 1].decode()

    assert least() == TOKEN
    report = {
        "python": sys.version.split()[0],
        "empty": median(lambda: run(library.ghl_abi_version)),
        "least": median(lambda: run(least)),
        "ours": median(lambda: run(lambda: access_token(company))),
        "nothing": median(lambda: run(lambda: None)),
    }
report["vendor"] = vendor()
print(json.dumps(report))
"""


def main() -> None:
    """Measures each given interpreter."""
    titles = ("empty call", "least", "ours", "vendor")
    print(f"{'Python':<10}", *(f"{title:>12}" for title in titles), f"{'ratio':>7}")
    for python in sys.argv[1:] or [sys.executable]:
        run = subprocess.run([python, "-c", PROGRAM], stdout=subprocess.PIPE, check=True)
        took = json.loads(run.stdout)
        # Subtracts the loop and its lambda; the vendor's loop has no lambda.
        ours = took["ours"] - took["nothing"]
        figures = (took["empty"], took["least"], ours, took["vendor"])
        shown = [f"{figure:>9.0f} ns" for figure in figures if figure is not None]
        if took["vendor"] is not None:
            shown.append(f"{ours / took['vendor']:>7.2f}")
        print(f"{took['python']:<10}", *shown)


if __name__ == "__main__":
    main()
