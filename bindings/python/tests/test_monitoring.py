"""Metrics, statistics and the files in examples/monitoring, with a real Prometheus if installed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import ghl_oauth
from ghl_oauth import aio

from . import test_cli
from .support import REPOSITORY, EmulatorTest, environment, free_port

MONITORING = REPOSITORY / "examples" / "monitoring"
PATIENCE = 60.0
STORE_UP = "ghl_oauth_store_up"
WRITTEN = "ghl_oauth_metrics_written_timestamp_seconds"
NEEDS_PROMETHEUS = "needs Prometheus (apt-get install prometheus)"


def samples(text: str) -> dict[str, float]:
    """The values by name and labels."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


class MetricsTest(EmulatorTest):
    def test_metrics_are_those_of_the_client(self) -> None:
        info = self.install()
        self.client.token_refresh(info.resource_id)
        found = samples(self.client.metrics(timeout=30, call_id="scrape"))
        self.assertEqual(found['ghl_oauth_tokens{state="ok"}'], 1)
        self.assertEqual(found["ghl_oauth_token_refreshes_total"], 1)
        version = ghl_oauth.library_version()
        self.assertEqual(found[f'ghl_oauth_build_info{{version="{version}"}}'], 1)

    def test_metrics_for_asyncio_are_awaited(self) -> None:
        async def main() -> str:
            async with aio.Client.from_client(self.make_client()) as client:
                return await client.metrics(timeout=30)

        self.assertEqual(samples(asyncio.run(main()))["ghl_oauth_store_up"], 1)

    def test_wrong_timeout_is_refused(self) -> None:
        with self.assertRaises(ghl_oauth.InvalidArgument) as caught:
            self.client.metrics(timeout=-1)
        self.assertEqual(caught.exception.parameter, "timeout")

    def test_statistics_are_typed_and_a_dict(self) -> None:
        info = self.install()
        self.client.request("GET", "/locations/x", resource_id=info.resource_id)
        self.emulator.control("POST", "/tokens/revoke", {"resourceId": info.resource_id})
        with self.assertRaises(ghl_oauth.ReauthorizationRequired):
            self.client.token_refresh(info.resource_id)
        statistics = self.client.stats()
        self.assertEqual(statistics.version, ghl_oauth.library_version())
        self.assertGreaterEqual(statistics.requests.sent, 3)
        self.assertEqual(statistics.requests.rate_limited, 0)
        self.assertEqual(
            (statistics.tokens.failed, statistics.tokens.failed_by_status),
            (1, {"GHL_ERR_REAUTHORIZATION_REQUIRED": 1}),
        )
        (busy,) = statistics.pace.busiest
        self.assertEqual((busy.resource_id, busy.held_for), (info.resource_id, None))
        self.assertEqual(busy.window, timedelta(seconds=10))
        self.assertEqual(statistics["tokens"]["failed"], 1)
        self.assertEqual(json.loads(json.dumps(statistics)), statistics.raw)


class CommandTest(test_cli.CliTest):
    def test_command_prints_metrics_or_replaces_a_file_with_them(self) -> None:
        self.login()
        printed = samples(self.ok("metrics"))
        self.assertEqual(printed['ghl_oauth_tokens{state="ok"}'], 1)
        path = self.folder / "ghl-oauth.prom"
        path.write_text("old")
        self.assertEqual(self.ok("metrics", "--output", str(path)), "")
        self.assertEqual(samples(path.read_text()).keys(), printed.keys())
        self.assertEqual(list(self.folder.glob("ghl-oauth.prom*")), [path])
        ended = self.run_cli("metrics", "--output", str(self.folder / "missing" / "file"))
        self.assertEqual(ended.returncode, 1)
        self.assertIn("cannot be written: No such file", ended.stderr)

    def test_metrics_say_when_they_were_written(self) -> None:
        before = int(time.time())
        written = samples(self.ok("metrics"))[WRITTEN]
        self.assertTrue(before <= written <= time.time(), written)

    def test_unusable_configuration_replaces_the_values_of_the_last_good_run(self) -> None:
        path = self.folder / "ghl-oauth.prom"
        secret = self.folder / "secret.txt"
        secret.write_text(self.emulator.client_secret)
        secret.chmod(0o600)
        self.configure(clientSecret=None, clientSecretFile="secret.txt")
        self.ok("metrics", "--output", str(path))
        for damage in (secret.unlink, secret.touch, self.config.unlink):
            damage()
            path.write_text("old")
            ended = self.run_cli("metrics", "--output", str(path))
            self.assertEqual(ended.returncode, 2, ended.stderr)
            self.assertNotEqual(ended.stderr, "")
            found = samples(path.read_text())
            self.assertEqual((set(found), found[STORE_UP]), ({STORE_UP, WRITTEN}, 0))

    @unittest.skipUnless(sys.platform == "linux", "needs RLIMIT_FSIZE")
    def test_file_that_cannot_be_written_leaves_no_partial_file(self) -> None:
        import resource

        path = self.folder / "ghl-oauth.prom"
        path.write_text("old")
        ended = subprocess.run(
            self.command("metrics", "--output", str(path)),
            env=self.variables,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(ended.returncode, 1, ended.stderr)
        self.assertIn("ghl-oauth.prom cannot be written", ended.stderr)
        self.assertEqual([file.name for file in self.folder.glob("ghl-oauth.prom*")], [path.name])
        self.assertEqual(path.read_text(), "old")

    def test_unreadable_store_is_reported_and_the_metrics_say_so(self) -> None:
        self.login()
        with contextlib.closing(sqlite3.connect(self.folder / "tokens.db")) as database:
            database.execute("ALTER TABLE token RENAME COLUMN document TO gone")
        ended = self.run_cli("metrics")
        self.assertEqual(ended.returncode, 4, ended.stderr)
        self.assertEqual(samples(ended.stdout)["ghl_oauth_store_up"], 0)
        self.assertIn("the store cannot be read", ended.stderr)


class FilesTest(unittest.TestCase):
    @unittest.skipUnless(shutil.which("promtool"), NEEDS_PROMETHEUS)
    def test_alert_rules_are_valid_and_fire_as_described(self) -> None:
        for arguments in (
            ("check", "config", "prometheus.yml"),
            ("check", "rules", "--lint-fatal", "alerts.yml"),
            ("test", "rules", "alerts_test.yml"),
        ):
            ended = subprocess.run(
                ("promtool", *arguments),
                cwd=MONITORING,
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)

    def test_every_alert_has_a_unit_test(self) -> None:
        alerts = re.findall(r"- alert: (\w+)", (MONITORING / "alerts.yml").read_text())
        tests = (MONITORING / "alerts_test.yml").read_text()
        self.assertGreater(len(alerts), 5)
        for alert in alerts:
            self.assertIn(f'"{alert}"', tests)

    def test_every_metric_is_documented_and_used_in_the_dashboard(self) -> None:
        page = (REPOSITORY / "docs" / "monitoring.md").read_text(encoding="utf-8")
        with ghl_oauth.Client("app-1", "a secret") as client:
            names = re.findall(r"^# TYPE (\w+) ", client.metrics(), flags=re.MULTILINE)
        self.assertGreater(len(names), 15)
        documented = re.findall(r"^\| `(ghl_oauth_\w+)", page, flags=re.MULTILINE)
        self.assertEqual(sorted(documented), sorted([*names, WRITTEN]))
        dashboard = (MONITORING / "dashboard.json").read_text()
        for name in (*names, WRITTEN):
            self.assertRegex(dashboard, rf"\b{name}\b")


class PrometheusTest(EmulatorTest):
    """A server of the example, with a token in every condition, scraped by a real Prometheus."""

    OPTIONS = ("--locations", "4")

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(self, *command: str) -> None:
        process = subprocess.Popen(
            command,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

        def stop() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(stop)

    def get(self, url: str) -> str:
        """The body, as soon as the server responds."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                    return str(answer.read().decode())
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def trouble(self, client: ghl_oauth.Client) -> None:
        """One token of each kind: ok, inactive, without consent, failing and unsaved."""
        self.install(client)
        ok, inactive, lost, failing = self.emulator.location_ids
        for location in (ok, inactive, lost, failing):
            client.access_token(location)
        self.emulator.control("POST", f"/locations/{inactive}", {"active": False})
        with self.assertRaises(ghl_oauth.LocationInactive):
            client.token_refresh(inactive)
        client.tokens_import(
            [{"accessToken": "a", "refreshToken": "unknown", "companyId": "gone", "expiresAt": 1}]
        )
        with self.assertRaises(ghl_oauth.ReauthorizationRequired):
            client.token_refresh("gone")
        self.emulator.fault("status", status=503, body="", endpoint="token")
        with self.assertRaises(ghl_oauth.ServerError):
            client.token_refresh(failing)
        self.emulator.end_faults()

    @unittest.skipUnless(shutil.which("prometheus"), NEEDS_PROMETHEUS)
    def test_every_query_of_dashboard_and_alerts_returns_data(self) -> None:
        database = self.folder / "tokens.db"
        config = {
            **self.emulator.configuration,
            "store": {"kind": "sqlite", "path": str(database)},
            "retry": {"maxAttempts": 1},
        }
        with ghl_oauth.Client.from_config(config) as client:
            self.trouble(client)
            exported = client.metrics()
            self.check_format(exported)
        expected = samples(exported)
        self.assertEqual(expected['ghl_oauth_tokens_failing{status="GHL_ERR_SERVER"}'], 1)

        written = self.folder / "config.json"
        written.write_text(json.dumps(config))
        written.chmod(0o600)
        server = str(REPOSITORY / "examples" / "python" / "metrics_server.py")
        settings = (MONITORING / "prometheus.yml").read_text()
        settings = settings.replace("alerts.yml", str(MONITORING / "alerts.yml"))
        settings = settings.replace("scrape_interval: 1m", "scrape_interval: 2s")
        for example in ("localhost:9464", "localhost:9465"):
            port = free_port()
            self.start(sys.executable, server, str(written), str(port))
            self.assertIn("ghl_oauth_store_up 1", self.get(f"http://127.0.0.1:{port}/metrics"))
            self.assertIn(example, settings)
            settings = settings.replace(example, f"127.0.0.1:{port}")
        served = self.folder / "served"
        served.mkdir()
        with open(served / "ghl-oauth.txt", "w", encoding="utf-8") as file:
            command = (sys.executable, "-m", "ghl_oauth", "--config", str(written), "metrics")
            subprocess.run(command, env=environment(), stdout=file, timeout=PATIENCE, check=True)
        port = free_port()
        self.start(
            *(sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"),
            *("--directory", str(served)),
        )
        self.get(f"http://127.0.0.1:{port}/ghl-oauth.txt")
        settings += f"""
  - job_name: command-line
    metrics_path: /ghl-oauth.txt
    scrape_interval: 2s
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""
        prometheus = f"127.0.0.1:{free_port()}"
        (self.folder / "prometheus.yml").write_text(settings)
        self.start(
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={prometheus}",
            "--log.level=error",
        )
        self.get(f"http://{prometheus}/-/ready")
        for name, query in self.queries():
            with self.subTest(name):
                self.assertTrue(self.results(prometheus, query), query)
        # Two processes and a file, one truth.
        for query, value in (
            ("count(ghl_oauth_store_up)", 3.0),
            ('max(ghl_oauth_tokens{state="ok"})', expected['ghl_oauth_tokens{state="ok"}']),
            ('min(ghl_oauth_tokens{state="ok"})', expected['ghl_oauth_tokens{state="ok"}']),
            ('max(ghl_oauth_tokens{state="inactive"})', 1.0),
            ('max(ghl_oauth_tokens{state="reauthorizationRequired"})', 1.0),
        ):
            self.assertTrue(self.results(prometheus, f"{query} == {value}"), query)

    def check_format(self, text: str) -> None:
        ended = subprocess.run(
            ("promtool", "check", "metrics"),
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, "", ""))

    def queries(self) -> Iterator[tuple[str, str]]:
        dashboard = json.loads((MONITORING / "dashboard.json").read_text())
        count = 0
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                count += 1
                query = target["expr"].replace("$job", ".*").replace("$__rate_interval", "1m")
                yield f"{panel['title']} {target['refId']}", query
        self.assertGreater(count, 20)
        rules = (MONITORING / "alerts.yml").read_text()
        found = re.findall(r"alert: (\w+)\n +expr: (?:\|-\n)?(.+?)\n +(?:for|labels):", rules, re.S)
        self.assertEqual(len(found), rules.count("- alert: "))
        for name, query in found:
            # Without the comparison, which a healthy store does not fulfil.
            query = re.sub(r"\s[<>] \d+$", "", query)
            yield name, re.sub(r"^absent\((.*)\)$", r"\1", query)

    def results(self, prometheus: str, query: str) -> list[dict[str, Any]]:
        """The result, as soon as there is one: a rate needs two scrapes."""
        url = f"http://{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        until = time.monotonic() + PATIENCE
        while True:
            answer = json.loads(self.get(url))
            self.assertEqual(answer["status"], "success", answer)
            found: list[dict[str, Any]] = answer["data"]["result"]
            if found or time.monotonic() > until:
                return found
            time.sleep(0.2)


class ServerTest(EmulatorTest):
    def test_example_server_serves_metrics_and_nothing_else(self) -> None:
        sys.path.insert(0, str(REPOSITORY / "examples" / "python"))
        self.addCleanup(sys.path.pop, 0)
        import metrics_server

        server = metrics_server.serve(self.client, free_port())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            with urllib.request.urlopen(f"{address}/metrics", timeout=PATIENCE) as answer:
                self.assertEqual(answer.headers["Content-Type"], ghl_oauth.METRICS_CONTENT_TYPE)
                self.assertEqual(samples(answer.read().decode())["ghl_oauth_store_up"], 1)
            with self.assertRaises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{address}/", timeout=PATIENCE)
            with contextlib.closing(caught.exception):
                self.assertEqual(caught.exception.code, 404)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@unittest.skipUnless(
    importlib.util.find_spec("opentelemetry"), "needs the SDK (pip install opentelemetry-sdk)"
)
class OpenTelemetryTest(EmulatorTest):
    def test_example_records_events_as_metrics_and_spans(self) -> None:
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        sys.path.insert(0, str(REPOSITORY / "examples" / "python"))
        self.addCleanup(sys.path.pop, 0)
        import opentelemetry_events

        reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(spans))
        trace.set_tracer_provider(tracers)
        opentelemetry_events.observe(self.client)
        info = self.install()
        with trace.get_tracer("host").start_as_current_span("caller"):
            self.client.token_refresh(info.resource_id)
        self.emulator.control("POST", "/tokens/revoke", {"resourceId": info.resource_id})
        with self.assertRaises(ghl_oauth.ReauthorizationRequired):
            self.client.token_refresh(info.resource_id)

        found = {}
        data: Any = reader.get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points:
                attributes = dict(point.attributes)
                self.assertNotIn(info.resource_id, attributes.values())
                found[metric.name, attributes.get("ghl_oauth.event")] = point.value
                if attributes.get("ghl_oauth.event") == "token.reauthorizationRequired":
                    lost = ghl_oauth.ReauthorizationRequired.status
                    self.assertEqual(attributes["error.type"], lost)
        self.assertEqual(
            found,
            {
                ("ghl_oauth.token.events", "token.saved"): 1,
                ("ghl_oauth.token.events", "token.refreshed"): 1,
                ("ghl_oauth.token.events", "token.reauthorizationRequired"): 1,
                ("ghl_oauth.token.unsaved", None): 0,
            },
        )
        ended: Any = {span.name: span for span in spans.get_finished_spans()}
        self.assertEqual(ended["token.refreshed"].parent.span_id, ended["caller"].context.span_id)
        failed = ended["token.reauthorizationRequired"]
        self.assertFalse(failed.status.is_ok)
        self.assertEqual(failed.attributes["ghl_oauth.resource_id"], info.resource_id)
