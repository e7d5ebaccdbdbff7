"""The client that the web workers and the queue's workers import.

GHL_OAUTH_CONFIG names a configuration file with the shared PostgreSQL store:

    {
      "clientId": "…", "clientSecretFile": "secret.txt",
      "redirectUri": "https://app.example/oauth/callback",
      "scopes": ["oauth.readonly", "oauth.write", "locations.readonly"],
      "store": {"kind": "postgres", "url": "postgres://app:password@db.example/app"}
    }
"""

from __future__ import annotations

import functools
import os

import ghl_oauth


@functools.cache
def client() -> ghl_oauth.Client:
    """One client for all threads of a worker. The workers call this first after the fork."""
    return ghl_oauth.Client.from_config(os.environ["GHL_OAUTH_CONFIG"])
