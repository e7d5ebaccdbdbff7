"""The program after the move: the library refreshes the imported token and sends a request.

python after.py CONFIG: the same configuration as for `ghl-oauth import`.
"""

from __future__ import annotations

import sys

import ghl_oauth

with ghl_oauth.Client.from_config(sys.argv[1]) as client:
    for token in client.tokens_list(user_type="Company"):
        renewed = client.token_refresh(token.resource_id)
        print("refreshed the token of", renewed.resource_id, "until", renewed.expires_at)
        for location in client.installed_locations(token.resource_id):
            print("location", location.id, "has a token:", bool(client.access_token(location.id)))
