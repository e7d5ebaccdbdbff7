"""The program before the move: the vendor's SDK keeps the company's token in MongoDB.

python before.py CONFIG MONGO_URL: CONFIG is the configuration of the library, MONGO_URL names the
database, such as mongodb://127.0.0.1:27017/crm.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlencode, urlsplit

from highlevel import HighLevel
from highlevel.storage import MongoDBSessionStorage


async def main(config, mongo_url):
    HighLevel.BASE_URL = config["baseUrl"]  # the emulator; the real API needs no such line
    storage = MongoDBSessionStorage(mongo_url, urlsplit(mongo_url).path.strip("/"))
    app = {"client_id": config["clientId"], "client_secret": config["clientSecret"]}
    sdk = HighLevel(**app, session_storage=storage)
    query = {
        "response_type": "code",
        "client_id": config["clientId"],
        "redirect_uri": config["redirectUri"],
        "scope": " ".join(config["scopes"]),
    }
    print(f"Open {config['authorizeUrl']}?{urlencode(query)}", flush=True)
    redirect_url = input("Paste the URL to which the browser was redirected: ")
    token = await sdk.oauth.get_access_token(
        {
            "clientId": config["clientId"],
            "clientSecret": config["clientSecret"],
            "grantType": "authorization_code",
            "code": parse_qs(urlsplit(redirect_url).query)["code"][0],
            "userType": "Company",
            "redirectUri": config["redirectUri"],
        }
    )
    await storage.set_session(token["companyId"], token)
    print("The SDK stored the token of", token["companyId"])
    await sdk.close()


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        asyncio.run(main(json.load(file), sys.argv[2]))
