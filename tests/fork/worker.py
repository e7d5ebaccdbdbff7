"""A process with a client that was made before it forks: does what its input says, a line at a time."""

import json
import multiprocessing
import os
import signal
import sys
import threading

import ghl_oauth


def ask(client, resource_id):
    try:
        return client.access_token(resource_id)
    except ghl_oauth.GhlError as error:
        return error.status


def in_child(work):
    """Forks; the child's text comes back through a pipe."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, work().encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.wait()
    return text


def make(config):
    config = dict(config)
    arguments = {
        "client_id": config["clientId"],
        "client_secret": config["clientSecret"],
        "base_url": config["baseUrl"],
        "store": config["store"],
        "timeouts": config.get("timeouts"),
    }
    return ghl_oauth.Client(**arguments)


def ask_by_name(resource_id):
    """What a pool's process runs: the inherited client after a fork, one of its own after a spawn."""
    client = inherited if inherited is not None else make(json.loads(os.environ["GHL_TEST_CONFIG"]))
    return ask(client, resource_id)


inherited = None


def main():
    global inherited
    client = inherited = make(json.loads(os.environ["GHL_TEST_CONFIG"]))
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "ask":
            answer = ask(client, *arguments)
        elif command == "ask-in-thread":
            threading.Thread(target=lambda: print(ask(client, *arguments), flush=True), daemon=True).start()
            continue
        elif command == "child-asks":
            answer = in_child(lambda: ask(client, *arguments))
        elif command == "idle-child":
            pid = os.fork()
            if pid == 0:
                signal.pause()
            answer = str(pid)
        elif command == "child-closes":
            answer = in_child(lambda: [client.stats(), client.close(), "closed"][-1])
        elif command == "grandchild-asks":
            answer = in_child(lambda: in_child(lambda: ask(client, *arguments)))
        elif command == "events-in-child":

            def listen():
                types = []
                client.on_event(lambda event: types.append(event.type))
                client.token_refresh(arguments[0])
                client.on_event(None)
                return " ".join(types)

            answer = in_child(listen)
        elif command == "pool":
            method, resource_id = arguments
            with multiprocessing.get_context(method).Pool(4) as pool:
                answer = " ".join(sorted(set(pool.map(ask_by_name, [resource_id] * 16))))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
