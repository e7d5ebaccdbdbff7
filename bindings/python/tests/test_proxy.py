"""A Flask app behind a proxy that terminates TLS."""

from __future__ import annotations

import http.server
import logging
import shutil
import ssl
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import ghl_oauth

from .support import EmulatorTest, free_port
from .test_workers import needs

if TYPE_CHECKING:
    import flask


class TlsProxy(http.server.ThreadingHTTPServer):
    """Terminates TLS, and forwards GET requests under an internal host name."""

    def __init__(self, port: int, backend: int, certificate: Path, key: Path) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                connection = HTTPConnection("127.0.0.1", backend, timeout=60)
                headers = {
                    "Host": "internal",
                    "X-Forwarded-Proto": "https",
                    "X-Forwarded-Host": self.headers["Host"],
                }
                connection.request("GET", self.path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                connection.close()
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                pass

        super().__init__(("127.0.0.1", port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)


class FlaskTest(EmulatorTest):
    def setUp(self) -> None:
        needs("flask")
        openssl = shutil.which("openssl")
        if openssl is None:
            print("skipped: a proxy that terminates TLS (apt-get install openssl)")
            self.skipTest("no openssl")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        certificate, key = Path(folder.name, "certificate.pem"), Path(folder.name, "key.pem")
        subprocess.run(
            [
                openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        self.trusting = ssl.create_default_context(cafile=str(certificate))
        port, self.backend = free_port(), 0
        self.redirect_uri = f"https://localhost:{port}/oauth/callback"
        self.OPTIONS = ("--redirect-uri", self.redirect_uri)
        super().setUp()
        self.client = self.make_client(redirect_uri=self.redirect_uri)
        self.errors: list[ghl_oauth.GhlError] = []
        self.app = self.make_app()
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs the codes
        backend = make_server("127.0.0.1", 0, lambda *request: self.app.wsgi_app(*request))
        for server in (backend, TlsProxy(port, backend.server_port, certificate, key)):
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            self.addCleanup(server.server_close)
            self.addCleanup(thread.join)
            self.addCleanup(server.shutdown)

    def make_app(self) -> flask.Flask:
        import flask

        app = flask.Flask(__name__)

        @app.get("/oauth/callback")
        def callback() -> tuple[str, int]:
            try:
                company = self.client.authorization_complete(flask.request.url)
            except ghl_oauth.GhlError as error:
                self.errors.append(error)
                return str(error), 400
            return company.resource_id, 200

        return app

    def get(self, url: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=self.trusting))
        try:
            with opener.open(url, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def test_consent_needs_the_address_that_the_browser_sees_and_the_error_says_so(self) -> None:
        redirect = self.emulator.consent(
            self.client.authorization_url().url, companyId=self.emulator.company_id
        )
        status, text = self.get(redirect)
        self.assertEqual(status, 400)
        self.assertIn(f"it is http://internal/oauth/callback, not {self.redirect_uri}", text)
        self.assertIn("werkzeug.middleware.proxy_fix.ProxyFix", text)
        self.assertEqual(self.errors[0].parameter, "redirect_url")

        from werkzeug.middleware.proxy_fix import ProxyFix

        # As the error says.
        self.app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            self.app.wsgi_app, x_proto=1, x_host=1
        )
        self.assertEqual(self.get(redirect), (200, self.emulator.company_id))
