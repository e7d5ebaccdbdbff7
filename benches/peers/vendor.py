"""The vendor's Python SDK, measured by `compare.py`: `vendor.py QUESTION TASK`."""

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path

from highlevel import HighLevel
from highlevel.error import GHLError
from highlevel.storage import MemorySessionStorage, MongoDBSessionStorage, SessionStorage


class Folder(SessionStorage):
    """A custom session storage as the documentation suggests: one file per session.

    Like the MongoDB storage, it normalizes field names and merges them into the existing session.
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)

    def set_client_id(self, client_id):
        pass

    async def init(self):
        self.path.mkdir(exist_ok=True)

    async def disconnect(self):
        pass

    async def create_collection(self, collection_name):
        pass

    async def get_collection(self, collection_name):
        return self.path

    async def set_session(self, resource_id, session_data):
        session_data = self.normalize_session_data(session_data)
        expire_at = self.calculate_expire_at(session_data.get("expires_in"))
        session = {
            **(await self.get_session(resource_id) or {}),
            **session_data,
            "expire_at": expire_at,
        }
        temporary = self.path / f"{resource_id}.{os.getpid()}"
        with temporary.open("w") as file:
            json.dump(session, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / f"{resource_id}.json")

    async def get_session(self, resource_id):
        try:
            return json.loads((self.path / f"{resource_id}.json").read_text())
        except FileNotFoundError:
            return None

    async def delete_session(self, resource_id):
        (self.path / f"{resource_id}.json").unlink(missing_ok=True)

    async def get_access_token(self, resource_id):
        return (await self.get_session(resource_id) or {}).get("access_token")

    async def get_refresh_token(self, resource_id):
        return (await self.get_session(resource_id) or {}).get("refresh_token")


class Peer:
    """A client of the SDK for the emulator."""

    def __init__(self, task, storage):
        HighLevel.BASE_URL = task["baseUrl"]  # The constructor has no option for it.
        self.task = task
        self.company_id = task["companyId"]
        self.storage = storage
        self.sdk = HighLevel(
            client_id=task["clientId"], client_secret=task["clientSecret"], session_storage=storage
        )

    async def token(self):
        """The token lookup that each call of the SDK does before its request."""
        header = await self.sdk.get_token_for_security(
            ["Agency-Access-Only"], query={"companyId": self.company_id}
        )
        return header.removeprefix("Bearer ")

    async def write(self):
        await self.storage.set_session(self.company_id, self.task["token"])
        print("{}")

    async def stored(self):
        print(json.dumps({"refreshToken": await self.storage.get_refresh_token(self.company_id)}))

    async def ask(self):
        """Starts concurrent callers for each line of the input."""
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            began = time.perf_counter()
            tokens = await asyncio.gather(
                *(self.token() for _ in range(self.task["callers"])), return_exceptions=True
            )
            took = time.perf_counter() - began
            tokens = [token for token in tokens if isinstance(token, str)]
            print(json.dumps({"tokens": tokens, "ms": took * 1e3}), flush=True)

    async def live(self):
        await self.storage.set_session(self.company_id, self.task["token"])
        calls = self.task["calls"]
        runs = []
        for _ in range(11):
            began = time.perf_counter()
            for _ in range(calls):
                await self.token()
            runs.append((time.perf_counter() - began) / calls)
        print(json.dumps({"us": statistics.median(runs) * 1e6}))

    async def refresh(self):
        """Makes the public call: the session keeps the token that the first refresh uses up."""
        refresh_token = self.task["token"]["refreshToken"]
        times = []
        for _ in range(self.task["calls"]):
            began = time.perf_counter()
            token = await self.sdk.oauth.refresh_token(
                refresh_token,
                self.task["clientId"],
                self.task["clientSecret"],
                "refresh_token",
                "Company",
            )
            await self.storage.set_session(self.company_id, token)
            times.append(time.perf_counter() - began)
            refresh_token = token["refreshToken"]
        print(json.dumps({"us": statistics.median(times) * 1e6}))

    async def mint(self):
        """One location after the other."""
        await self.storage.set_session(self.company_id, self.task["token"])
        refused = 0
        began = time.perf_counter()
        for location_id in self.task["locations"]:
            place = {"companyId": self.company_id, "locationId": location_id}
            while True:
                try:
                    token = await self.sdk.oauth.get_location_access_token(place)
                    break
                except GHLError as error:
                    if error.status_code != 429:
                        raise
                    refused += 1
                    await asyncio.sleep(self.task["windowMs"] / 1e3)
            await self.storage.set_session(location_id, {**token, "userType": "Location", **place})
        seconds = time.perf_counter() - began
        print(
            json.dumps(
                {"minted": len(self.task["locations"]), "refused": refused, "seconds": seconds}
            )
        )

    async def start(self):
        print(await self.token())


def storage_at(place):
    """The session storage in a folder, in a database of a MongoDB server, or in memory."""
    if not place:
        return MemorySessionStorage()
    if place.startswith("mongodb:"):
        return MongoDBSessionStorage(*place.rsplit("/", 1))
    return Folder(place)


def main():
    question, task = sys.argv[1], json.loads(sys.argv[2])
    peer = Peer(task, storage_at(task.get("store")))
    asyncio.run(getattr(peer, question)())


if __name__ == "__main__":
    main()
