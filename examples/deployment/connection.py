"""The client of this process, with the configuration that GHL_OAUTH_CONFIG names."""

from __future__ import annotations

import functools
import os

import ghl_oauth


@functools.cache
def client() -> ghl_oauth.Client:
    """One client for all threads. Servers call this first in each worker, after the fork."""
    return ghl_oauth.Client.from_config(os.environ["GHL_OAUTH_CONFIG"])
