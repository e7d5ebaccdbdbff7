"""The queue's workers: celery --app tasks worker --beat

BROKER_URL names the broker, such as redis://broker.example or amqp://broker.example, and
BROKER_OPTIONS may contain Celery's broker_transport_options as JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any

import celery
import celery.signals

import ghl_oauth
from ghl import client

app = celery.Celery("tasks", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    broker_transport_options=json.loads(os.environ.get("BROKER_OPTIONS", "{}")),
    # Renews due tokens and mints for INSTALLs whose task was lost.
    beat_schedule={"maintain": {"task": "maintain", "schedule": 300}},
)


@celery.signals.worker_process_init.connect
def connect(**_: Any) -> None:
    """In each worker process, after the fork; a wrong configuration is logged at the start."""
    client()


@app.task(name="mint", bind=True, max_retries=None)
def mint(task: Any, location_id: str) -> None:
    """Mints the token of a new location."""
    try:
        client().access_token(location_id)
    except ghl_oauth.GhlError as error:
        if not error.retryable:
            raise
        raise task.retry(exc=error, countdown=error.retry_after or 10) from None


@app.task(name="maintain")
def maintain() -> None:
    client().tokens_maintain(concurrency=4)
