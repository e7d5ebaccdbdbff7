"""A metrics endpoint for Prometheus, with nothing but the standard library.

    python metrics_server.py config.json 9464

A program that has a web server adds a route instead: docs/monitoring.md.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ghl_oauth


def serve(client: ghl_oauth.Client, port: int) -> ThreadingHTTPServer:
    """A server on localhost; its ``serve_forever`` runs on a thread of the program."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            # Less than Prometheus' own timeout, which is 10 seconds by default.
            text = client.metrics(timeout=5).encode()
            self.send_response(200)
            self.send_header("Content-Type", ghl_oauth.METRICS_CONTENT_TYPE)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    serve(ghl_oauth.Client.from_config(sys.argv[1]), int(sys.argv[2])).serve_forever()
