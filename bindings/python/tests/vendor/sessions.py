"""The old program of test_migration.py: the vendor's Python SDK obtains tokens and stores them.

``sessions.py TASK``, where TASK is JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

from highlevel import HighLevel
from highlevel.storage import MemorySessionStorage, MongoDBSessionStorage


async def main(task: dict[str, Any]) -> None:
    HighLevel.BASE_URL = task["baseUrl"]
    storage: Any = MemorySessionStorage()
    if "mongo" in task:
        storage = MongoDBSessionStorage(task["mongo"], task["database"])
    company_id, location_id = task["companyId"], task["locationId"]
    sdk: Any = HighLevel(
        client_id=task["clientId"], client_secret=task["clientSecret"], session_storage=storage
    )
    await storage.init()
    company = await sdk.oauth.get_access_token(
        {
            "clientId": task["clientId"],
            "clientSecret": task["clientSecret"],
            "grantType": "authorization_code",
            "code": parse_qs(urlsplit(task["redirectUrl"]).query)["code"][0],
            "userType": "Company",
            "redirectUri": task["redirectUri"],
        }
    )
    await storage.set_session(company_id, company)
    location = await sdk.oauth.get_location_access_token(
        {"companyId": company_id, "locationId": location_id}
    )
    await storage.set_session(location_id, location)
    # The SDK's own refresh keeps the spent refresh token in the session, next to the new one.
    session = await storage.get_session(company_id)
    await sdk._refresh_token_if_needed(company_id, session)
    session = await storage.get_session(company_id)
    assert session["refresh_token"] != session["refreshToken"]
    if "mongo" not in task:
        print(json.dumps(storage.sessions, default=str))
    await storage.disconnect()


asyncio.run(main(json.loads(sys.argv[1])))
