"""The client of this process, from the configuration that GHL_OAUTH_CONFIG names."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import ghl_oauth


@functools.cache
def client() -> ghl_oauth.Client:
    """One client for all threads. Servers call this first in each worker, after the fork."""
    path = Path(os.environ["GHL_OAUTH_CONFIG"])
    settings = json.loads(path.read_text())
    settings["clientSecret"] = (path.parent / settings.pop("clientSecretFile")).read_text().strip()
    return ghl_oauth.Client.from_config(settings)
