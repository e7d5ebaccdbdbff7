"""Metrics and spans of OpenTelemetry from the events of a client.

    pip install opentelemetry-sdk
    python opentelemetry_events.py config.json

The program maintains the stored tokens once and prints what it has recorded. A real program sets
up its exporter (OTLP, for example) where this one sets up the console, and calls ``observe``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from opentelemetry import metrics, trace
from opentelemetry.trace import Status, StatusCode

import ghl_oauth


def observe(client: ghl_oauth.Client) -> None:
    """Records every event of the client with the global providers."""
    meter, tracer = metrics.get_meter("ghl_oauth"), trace.get_tracer("ghl_oauth")
    events = meter.create_counter(
        "ghl_oauth.token.events", unit="{event}", description="Changes of tokens, by type."
    )

    def unsaved(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        yield metrics.Observation(client.stats().tokens.unsaved)

    meter.create_observable_gauge(
        "ghl_oauth.token.unsaved",
        callbacks=[unsaved],
        unit="{token}",
        description="New tokens that the store has not accepted yet.",
    )

    # Runs on a thread that is inside a call of the client, so the span belongs to the caller's
    # trace. Both SDK calls only enqueue: nothing is sent on this thread.
    def record(event: ghl_oauth.Event) -> None:
        attributes = {"ghl_oauth.event": event.type}
        if event.error is not None:
            attributes["error.type"] = event.error.status
        # Only the span names the company or location: a metric would get a series for each.
        events.add(1, attributes)
        owner = {"ghl_oauth.resource_id": event.resource_id}
        with tracer.start_as_current_span(event.type, attributes={**attributes, **owner}) as span:
            if event.error is not None:
                span.record_exception(event.error)
                span.set_status(Status(StatusCode.ERROR, event.error.message))

    client.on_event(record)


def main() -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    reader = PeriodicExportingMetricReader(ConsoleMetricExporter())
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    trace.set_tracer_provider(tracers)
    client = ghl_oauth.Client.from_config(sys.argv[1])
    observe(client)
    done = client.tokens_maintain()
    print(f"{done.refreshed} refreshed, {len(done.failed)} failed")
    # The providers export the rest when the interpreter exits.


if __name__ == "__main__":
    main()
