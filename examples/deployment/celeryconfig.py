"""celery --app tasks worker --concurrency 4, and one celery --app tasks beat."""

import os

broker_url = os.environ["CELERY_BROKER_URL"]
imports = ("tasks",)
# A refresh that was sent is saved before the soft limit's exception; the hard limit kills.
task_soft_time_limit = 300
task_time_limit = 345
worker_prefetch_multiplier = 1
# SIGTERM waits for the tasks in progress. systemd's TimeoutStopSec must be longer than the longest.
beat_schedule = {
    "maintain": {
        "task": "tasks.maintain",
        "schedule": 300.0,
        # A late one is of no use.
        "options": {"expires": 240},
    }
}
