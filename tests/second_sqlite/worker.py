"""A process with a client and a second SQLite: executes its input line by line."""

import ctypes
import functools
import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
import threading

import ghl_oauth


def said(client, call, resource_id):
    """The result of the call, and the number of unsaved tokens: "refreshed 0"."""
    try:
        answer = call(resource_id)
    except ghl_oauth.GhlError as error:
        answer = error.status
    unsaved = client.stats()["tokens"]["unsaved"]
    return f"{answer if isinstance(answer, str) else 'refreshed'} {unsaved}"


def look(path):
    """Acts like a host program that reads its own tables in the same file."""
    database = sqlite3.connect(path)
    database.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
    database.close()


def back_up(path):
    source, target = sqlite3.connect(path), sqlite3.connect(path + ".backup")
    source.backup(target)
    target.close()
    source.close()


def second_library(path):
    """A second copy of this library in the process, as loaded by another package."""
    copy = path + ".library.so"
    if not os.path.exists(copy):
        shutil.copy(os.environ["GHL_OAUTH_LIBRARY"], copy)
    library = ctypes.CDLL(copy)
    client = ctypes.c_void_p()
    config = os.environ["GHL_TEST_CONFIG"].encode()
    assert library.ghl_client_new(config, ctypes.byref(client), None) == 0
    library.ghl_client_free(client)


def read_file(path):
    """A backup by copying: closing the file releases all POSIX locks of the process on it."""
    for name in filter(os.path.exists, (path, path + "-wal", path + "-shm")):
        with open(name, "rb") as file:
            file.read()


def hold(client, resource_id, number):
    """Imports the token with this number. Returns the number of imported tokens."""
    token = {
        "companyId": resource_id,
        "accessToken": f"{resource_id}-{number}",
        "expiresAt": 4_000_000_000_000,
    }
    return client.tokens_import([token], replace=True).imported


def stored(client, resource_id):
    """The stored access token."""
    found = list(client.tokens_export(company_id=resource_id))
    return found[0].access_token if found else "nothing"


def in_background(step):
    """Repeats a step in a thread until the process ends, and collects its errors."""

    def work():
        for number in itertools.count():
            try:
                step(number)
            except (ghl_oauth.GhlError, sqlite3.Error) as error:
                failures.append(repr(error))

    threading.Thread(target=work, daemon=True).start()


failures = []


def main():
    # A call that never returns is a failure as well.
    signal.alarm(600)
    config = json.loads(os.environ["GHL_TEST_CONFIG"])
    client = ghl_oauth.Client.from_config(config)
    print("ready", flush=True)
    acts = {
        "look": look,
        "back-up": back_up,
        "second-library": second_library,
        "read-file": read_file,
    }
    for line in sys.stdin:
        command, *arguments = line.split()
        if command in acts:
            acts[command](config["store"]["path"])
            answer = "done"
        elif command == "look-without-end":
            in_background(lambda _: look(config["store"]["path"]))
            answer = "done"
        elif command == "import-without-end":
            in_background(functools.partial(hold, client, *arguments))
            answer = "done"
        elif command == "import":
            answer = hold(client, *arguments)
        elif command == "stored":
            answer = stored(client, *arguments)
        elif command == "failures":
            answer = f"{len(failures)} {failures[:1]}"
        elif command == "maintain":
            client.tokens_maintain()
            answer = "done"
        elif command == "ask":
            answer = said(client, client.access_token, *arguments)
        elif command == "refresh":
            answer = said(client, client.token_refresh, *arguments)
        elif command == "refresh-in-thread":
            refresh = [client, client.token_refresh, *arguments]
            threading.Thread(target=lambda: print(said(*refresh), flush=True), daemon=True).start()
            continue
        print(answer, flush=True)


if __name__ == "__main__":
    main()
