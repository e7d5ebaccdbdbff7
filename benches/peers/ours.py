"""This library from Python, measured by `compare.py`: `ours.py QUESTION TASK`."""

import json
import statistics
import sys
import threading
import time

import ghl_oauth


def ask(client, task):
    """Starts concurrent callers for each line of the input."""
    print("ready", flush=True)
    for _ in sys.stdin:
        tokens = []

        def call(tokens=tokens):
            tokens.append(client.access_token(task["companyId"]))

        callers = [threading.Thread(target=call) for _ in range(task["callers"])]
        began = time.perf_counter()
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        print(json.dumps({"tokens": tokens, "ms": (time.perf_counter() - began) * 1e3}), flush=True)


def live(client, task):
    calls, company_id = task["calls"], task["companyId"]
    client.tokens_import([task["token"]])
    runs = []
    for _ in range(11):
        began = time.perf_counter()
        for _ in range(calls):
            client.access_token(company_id)
        runs.append((time.perf_counter() - began) / calls)
    print(json.dumps({"us": statistics.median(runs) * 1e6}))


def refresh(client, task):
    client.tokens_import([task["token"]])
    times = []
    for _ in range(task["calls"]):
        began = time.perf_counter()
        client.token_refresh(task["companyId"])
        times.append(time.perf_counter() - began)
    print(json.dumps({"us": statistics.median(times) * 1e6}))


def start(client, task):
    print(client.access_token(task["companyId"]))


def main():
    task = json.loads(sys.argv[2])
    with ghl_oauth.Client.from_config(task["config"]) as client:
        globals()[sys.argv[1]](client, task)


if __name__ == "__main__":
    main()
