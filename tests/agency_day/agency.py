"""An agency's server in Python: ``agency.py CONFIG-FILE PORT``.

Receives webhooks on 127.0.0.1:PORT. Each line of stdin is the redirect URL of a consent. At the
end of stdin the program makes a last call for every location and exits.
"""

from __future__ import annotations

import http.server
import json
import select
import sys
import threading
import time

import ghl_oauth


def receiver(client: ghl_oauth.Client, port: int) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                client.webhook_apply(body, dict(self.headers.items()))
                status = 200
            except ghl_oauth.SignatureInvalid:
                status = 401
            except ghl_oauth.GhlError as error:
                status = 429 if error.retryable else 400
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def visit_all(client: ghl_oauth.Client) -> tuple[dict[str, int], bool]:
    """Calls the API for each location. Returns the statuses, and whether to retry."""
    visited: dict[str, int] = {}
    again = False
    for held in list(client.tokens_list(user_type="Location", page_size=1000)):
        try:
            answer = client.request(
                "GET", f"/locations/{held.resource_id}", resource_id=held.resource_id
            )
            visited[held.resource_id] = answer.status
            again = again or answer.status in (401, 429) or answer.status >= 500
        except ghl_oauth.LocationInactive:
            continue  # paused by its agency; its token is kept
        except ghl_oauth.GhlError as error:
            print(f"{held.resource_id}: {error}", file=sys.stderr)
            again = again or error.retryable
    return visited, again


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as file:
        client = ghl_oauth.Client.from_config(json.load(file))
    with client:
        server = receiver(client, int(sys.argv[2]))
        print(f"link {client.authorization_url().url}", flush=True)
        while True:
            if not select.select([sys.stdin], [], [], 0.5)[0]:
                client.tokens_maintain()
                visit_all(client)
                continue
            line = sys.stdin.readline().strip()
            if not line:
                break
            company = client.authorization_complete(line)
            client.tokens_mint(company.resource_id)
            print(f"connected {company.resource_id}", flush=True)
            print(f"link {client.authorization_url().url}", flush=True)
        end = time.monotonic() + 90
        while True:
            client.tokens_maintain()
            visited, again = visit_all(client)
            if not again or time.monotonic() > end:
                break
            time.sleep(1)
        for resource_id, status in visited.items():
            print(f"visited {resource_id} {status}")
        server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
