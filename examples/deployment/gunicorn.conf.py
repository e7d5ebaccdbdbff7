"""gunicorn --config gunicorn.conf.py app:app"""

import os

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = 4
worker_class = "gthread"
threads = 8
# Each worker imports the app, and so creates its own client after the fork.
preload_app = False
umask = 0o077
# Both are longer than a call can take (timeouts.totalMs, 30 s): a worker is not killed while it
# waits for the answer to a refresh. systemd's TimeoutStopSec must be longer than graceful_timeout.
timeout = 60
graceful_timeout = 45
