"""A process that creates a client and then forks: executes its input line by line."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import stat
import sys
import threading
import time

import ghl_oauth
from ghl_oauth._callback import callback
from ghl_oauth._library import EventCallback, LogCallback, library


def ask(client, resource_id, **options):
    try:
        return client.access_token(resource_id, **options)
    except ghl_oauth.GhlError as error:
        return error.status


def in_child(work):
    """Forks and returns the text of the child through a pipe."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        tell(writer, work)
    os.close(writer)
    return told(reader)


def tell(writer, work):
    """Runs in the child; an alarm kills it if it hangs."""
    signal.alarm(60)
    os.write(writer, work().encode())
    os._exit(0)


def told(reader):
    with open(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.wait()
    return text


def make(config):
    config = dict(config)
    arguments = {
        "client_id": config["clientId"],
        "client_secret": config["clientSecret"],
        "redirect_uri": "https://app.example/oauth/callback",
        "base_url": config["baseUrl"],
        "store": config["store"],
        "timeouts": config.get("timeouts"),
    }
    return ghl_oauth.Client(**arguments)


def ask_by_name(resource_id):
    """The task of a pool process: uses the inherited client, or a new one after a spawn."""
    client = inherited if inherited is not None else make(json.loads(os.environ["GHL_TEST_CONFIG"]))
    return ask(client, resource_id)


class Receiver:
    """Sets an event or log callback through the C ABI: a replacement waits for running calls."""

    def __init__(self, client, kind, function):
        self.client = client._open()
        self.heard = threading.Event()

        def hear(*_arguments):
            self.heard.set()
            function()

        self.is_for_events = kind == "events"
        self.callback = callback(EventCallback if self.is_for_events else LogCallback, hear)

    def set(self):
        if self.is_for_events:
            return library.ghl_client_on_event(self.client._pointer, self.callback, None)
        return library.ghl_set_log_callback(self.callback, None, 5)


def happen(client):
    """Causes an event and a log message."""
    client.tokens_import(
        [{"accessToken": "a", "companyId": "another", "userType": "Company", "expiresIn": 9}],
        replace=True,
    )


def child_of_a_replacement(client, kind):
    """Forks while a thread waits to replace a running callback. Returns the child's events."""
    ended = threading.Event()
    first = Receiver(client, kind, lambda: threading.current_thread() is inside and ended.wait())
    second, third = (Receiver(client, kind, lambda: None) for _ in range(2))
    first.set()
    inside = threading.Thread(target=happen, args=[client])
    inside.start()
    first.heard.wait()
    replaces = threading.Thread(target=second.set)
    replaces.start()
    while not second.heard.is_set():
        happen(client)

    def child():
        happen(client)
        status = third.set()
        happen(client)
        return f"{status} {third.heard.is_set()}"

    answer = in_child(child)
    waited = replaces.is_alive()
    ended.set()
    inside.join()
    replaces.join()
    return f"{answer} {waited}"


def fork_in_a_receiver(client, kind, caller):
    """Forks inside a callback, which returns in both processes.

    Returns for each process how the call ended, and the events of a new callback. ``caller``: the
    thread that makes the call. Only for the main thread does the package use a second one.
    """
    reader, writer = os.pipe()
    children, ends = [], []
    first = Receiver(client, kind, lambda: children or children.append(os.fork()))
    second = Receiver(client, kind, lambda: None)
    first.set()

    def fork():
        try:
            happen(client)
            end = "returned"
        except ghl_oauth.Cancelled as error:
            end = error.status
        status = second.set()
        happen(client)
        ends.append(f"{end} {status} {second.heard.is_set()}")
        if children == [0]:
            tell(writer, ends.pop)

    if caller == "main":
        fork()
    else:
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    os.close(writer)
    return f"{told(reader)} {ends.pop()}"


def forks_beside_a_writer(client, resource_id):
    """Forks while another thread waits to write. Returns the longest fork in milliseconds."""
    waits = threading.Thread(target=refresh, args=[client, resource_id], daemon=True)
    waits.start()
    longest = 0
    while waits.is_alive():
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os._exit(0)
        longest = max(longest, time.monotonic() - began)
        os.waitpid(child, 0)
    return str(round(longest * 1000))


def port_after_a_fork(client):
    """Forks while a thread waits for a redirect; then ends the wait.

    Returns what a browser with a connection, and a second one, find while the child lives.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = free.getsockname()
    ends = []

    def wait():
        try:
            client.authorization_listen(port=place[1])
        except ghl_oauth.GhlError as error:
            ends.append(error.status)

    waits = threading.Thread(target=wait)
    waits.start()
    browser = None
    while browser is None:
        with contextlib.suppress(ConnectionRefusedError):
            browser = socket.create_connection(place, timeout=10)
    child = os.fork()
    if child == 0:
        signal.pause()
    client.cancel()
    waits.join()
    try:
        ends.append("closed" if browser.recv(1) == b"" else "answered")
    except ConnectionResetError:
        ends.append("closed")
    except TimeoutError:
        ends.append("open")
    try:
        socket.create_connection(place, timeout=10)
        ends.append("open")
    except ConnectionRefusedError:
        ends.append("closed")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return " ".join(ends)


def without_streams(resource_id):
    """Uses a new client after the standard streams were closed.

    Returns the token, and what the program's own output could reach then.
    """
    for stream in range(3):
        os.close(stream)
    config = json.loads(os.environ["GHL_TEST_CONFIG"])
    client = make(config)
    token = ask(client, resource_id)
    reached = set()
    for stream in range(3):
        with contextlib.suppress(OSError):
            # SQLite opens /dev/null under these numbers.
            if not stat.S_ISCHR(os.fstat(stream).st_mode):
                reached.add(stream)
    return f"{token} {reached or None}"


def refresh(client, resource_id):
    try:
        client.token_refresh(resource_id)
    except ghl_oauth.GhlError as error:
        return error.status


inherited = None


def main():
    global inherited
    # An endless wait must fail the test.
    signal.alarm(120)
    client = inherited = make(json.loads(os.environ["GHL_TEST_CONFIG"]))
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "ask":
            answer = ask(client, *arguments)
        elif command == "ask-in-thread":
            threading.Thread(
                target=lambda: print(ask(client, *arguments, call_id="mine"), flush=True),
                daemon=True,
            ).start()
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
        elif command == "child-cancels":
            answer = in_child(lambda: [client.cancel(), "cancelled"][-1])
        elif command in ("child-cancels-its-own", "child-cancels-by-id"):
            call_id = "mine" if command == "child-cancels-by-id" else None

            def cancel():
                answers = []
                waits = threading.Thread(
                    target=lambda: answers.append(ask(client, *arguments, call_id=call_id))
                )
                waits.start()
                while waits.is_alive():
                    client.cancel(call_id)
                return answers[0]

            answer = in_child(cancel)
        elif command == "child-of-a-replacement":
            answer = child_of_a_replacement(client, *arguments)
        elif command == "fork-in-a-receiver":
            answer = fork_in_a_receiver(client, *arguments)
        elif command == "events-in-child":

            def listen():
                types = []
                client.on_event(lambda event: types.append(event.type))
                client.token_refresh(arguments[0])
                client.on_event(None)
                return " ".join(types)

            answer = in_child(listen)
        elif command == "port-after-a-fork":
            answer = port_after_a_fork(client)
        elif command == "child-without-streams":
            answer = in_child(lambda: without_streams(*arguments))
        elif command == "forks-beside-a-writer":
            answer = forks_beside_a_writer(client, *arguments)
        elif command == "pool":
            method, resource_id = arguments
            with multiprocessing.get_context(method).Pool(4) as pool:
                answer = " ".join(sorted(set(pool.map(ask_by_name, [resource_id] * 16))))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
