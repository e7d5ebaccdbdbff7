"""A process with a client whose store has a relative path: executes its input line by line."""

import json
import os
import signal
import sys

import ghl_oauth


def ask(client, resource_id):
    try:
        return client.access_token(resource_id)
    except ghl_oauth.GhlError as error:
        return error.status


def main():
    signal.alarm(120)
    client = ghl_oauth.Client.from_config(json.loads(os.environ["GHL_TEST_CONFIG"]))
    print("ready", flush=True)
    for line in sys.stdin:
        command, argument = line.split()
        if command == "change-directory":
            os.chdir(argument)
            answer = "done"
        elif command == "ask":
            answer = ask(client, argument)
        elif command == "child-asks":
            reader, writer = os.pipe()
            if os.fork() == 0:
                os.write(writer, ask(client, argument).encode())
                os._exit(0)
            os.close(writer)
            with open(reader, encoding="utf-8") as pipe:
                answer = pipe.read()
        print(answer, flush=True)


if __name__ == "__main__":
    main()
