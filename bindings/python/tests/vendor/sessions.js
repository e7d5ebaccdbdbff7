// The old program of test_migration.py: the vendor's Node SDK obtains tokens and stores them.
// node sessions.js TASK, where TASK is JSON.
"use strict";
const {
  HighLevel,
  MemorySessionStorage,
  MongoDBSessionStorage,
} = require("@gohighlevel/api-client");

async function main(task) {
  HighLevel.BASE_URL = task.baseUrl;
  const { clientId, clientSecret, redirectUri, companyId, locationId } = task;
  const sessionStorage = task.mongo
    ? new MongoDBSessionStorage(task.mongo, task.database)
    : new MemorySessionStorage();
  const sdk = new HighLevel({ clientId, clientSecret, sessionStorage });
  if (task.mongo) await sessionStorage.init();
  const company = await sdk.oauth.getAccessToken({
    client_id: clientId,
    client_secret: clientSecret,
    grant_type: "authorization_code",
    code: new URL(task.redirectUrl).searchParams.get("code"),
    user_type: "Company",
    redirect_uri: redirectUri,
  });
  await sessionStorage.setSession(companyId, company);
  // As the SDK's webhook handler stores a location's token after an INSTALL.
  const location = await sdk.oauth.getLocationAccessToken({ companyId, locationId });
  await sessionStorage.setSession(locationId, location);
  if (task.mongo) await sessionStorage.disconnect();
  else console.log(JSON.stringify(Object.fromEntries(sessionStorage.sessions)));
}

main(JSON.parse(process.argv[2])).then(() => process.exit(0), (error) => {
  console.error(error.message);
  process.exit(1);
});
