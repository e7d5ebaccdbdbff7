"""The tasks of Celery."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

import connection

app = Celery("tasks")
app.config_from_object("celeryconfig")


@signals.worker_process_init.connect
def connect(**_: Any) -> None:
    """In each worker process, after the fork; a wrong configuration is logged at the start."""
    os.umask(0o077)
    connection.client()


@app.task
def maintain() -> int:
    """Refreshes the tokens that are due. Several at the same time share the work."""
    return connection.client().tokens_maintain(concurrency=8).refreshed


@app.task
def location(location_id: str) -> Any:
    answer = connection.client().request(
        "GET", f"/locations/{location_id}", resource_id=location_id
    )
    return answer.raise_for_status().body
