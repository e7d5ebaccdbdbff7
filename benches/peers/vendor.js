// The vendor's TypeScript SDK, measured by compare.py: node vendor.js QUESTION TASK. It uses the
// API version before v3.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const {
  HighLevel, MemorySessionStorage, MongoDBSessionStorage, SessionStorage,
} = require("@gohighlevel/api-client");

/** A custom session storage as the documentation suggests: one file per session. */
class Folder extends SessionStorage {
  constructor(folder) {
    super();
    this.folder = folder;
    this.saves = 0;
  }
  file(resourceId) {
    return path.join(this.folder, `${resourceId}.json`);
  }
  setClientId() {}
  async init() {
    fs.mkdirSync(this.folder, { recursive: true });
  }
  async disconnect() {}
  async createCollection() {}
  async getCollection() {
    return this.folder;
  }
  async setSession(resourceId, session) {
    session = { ...session, expire_at: this.calculateExpireAt(session.expires_in) };
    const temporary = path.join(this.folder, `${resourceId}.${process.pid}.${this.saves++}`);
    const file = await fs.promises.open(temporary, "w");
    await file.writeFile(JSON.stringify(session));
    await file.sync();
    await file.close();
    await fs.promises.rename(temporary, this.file(resourceId));
  }
  async getSession(resourceId) {
    try {
      return JSON.parse(await fs.promises.readFile(this.file(resourceId), "utf8"));
    } catch {
      return null;
    }
  }
  async deleteSession(resourceId) {
    await fs.promises.rm(this.file(resourceId), { force: true });
  }
  async getAccessToken(resourceId) {
    return (await this.getSession(resourceId))?.access_token ?? null;
  }
  async getRefreshToken(resourceId) {
    return (await this.getSession(resourceId))?.refresh_token ?? null;
  }
}

/** The session storage in a folder, in a database of a MongoDB server, or in memory. */
function storageAt(place) {
  if (!place) return new MemorySessionStorage();
  const end = place.lastIndexOf("/");
  return place.startsWith("mongodb:")
    ? new MongoDBSessionStorage(place.slice(0, end), place.slice(end + 1))
    : new Folder(place);
}

const [question, task] = [process.argv[2], JSON.parse(process.argv[3])];
const { companyId, clientId, clientSecret } = task;
HighLevel.BASE_URL = task.baseUrl; // The constructor has no option for it.
const storage = storageAt(task.store);
// The constructor starts this without waiting for it.
const init = storage.init.bind(storage);
let initialized;
storage.init = () => (initialized = init());
const sdk = new HighLevel({ clientId, clientSecret, sessionStorage: storage });

/** The token lookup that each call of the SDK does before its request. */
async function token() {
  const header = await sdk.getTokenForSecurity(["Agency-Access-Only"], {}, { companyId });
  return header.replace(/^Bearer /, "");
}

function session(token) {
  const { accessToken, refreshToken, expiresIn, ...rest } = token;
  return { ...rest, access_token: accessToken, refresh_token: refreshToken, expires_in: expiresIn };
}

const milliseconds = () => Number(process.hrtime.bigint()) / 1e6;
const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];
const tell = (answer) => console.log(JSON.stringify(answer));

const questions = {
  async write() {
    await storage.setSession(companyId, session(task.token));
    tell({});
  },
  async stored() {
    tell({ refreshToken: await storage.getRefreshToken(companyId) });
  },
  /** Starts concurrent callers for each line of the input. */
  async ask() {
    console.log("ready");
    for await (const _ of readline.createInterface({ input: process.stdin })) {
      const began = milliseconds();
      const callers = await Promise.allSettled(Array.from({ length: task.callers }, token));
      const ms = milliseconds() - began;
      tell({ tokens: callers.filter((caller) => caller.value).map((caller) => caller.value), ms });
    }
  },
  async live() {
    await storage.setSession(companyId, session(task.token));
    const runs = [];
    for (let run = 0; run < 11; run++) {
      const began = milliseconds();
      for (let i = 0; i < task.calls; i++) await token();
      runs.push((milliseconds() - began) / task.calls);
    }
    tell({ us: median(runs) * 1e3 });
  },
  async refresh() {
    let refreshToken = task.token.refreshToken;
    const times = [];
    for (let i = 0; i < task.calls; i++) {
      const began = milliseconds();
      const answer = await sdk.oauth.refreshToken(
        refreshToken, clientId, clientSecret, "refresh_token", "Company");
      await storage.setSession(companyId, answer);
      times.push(milliseconds() - began);
      refreshToken = answer.refresh_token;
    }
    tell({ us: median(times) * 1e3 });
  },
  /** One location after the other. */
  async mint() {
    await storage.setSession(companyId, session(task.token));
    let refused = 0;
    const began = milliseconds();
    for (const locationId of task.locations) {
      for (;;) {
        try {
          const answer = await sdk.oauth.getLocationAccessToken({ companyId, locationId });
          await storage.setSession(locationId, { ...answer, userType: "Location", companyId });
          break;
        } catch (error) {
          if (error.statusCode !== 429) throw error;
          refused++;
          await new Promise((resolve) => setTimeout(resolve, task.windowMs));
        }
      }
    }
    tell({ minted: task.locations.length, refused, seconds: (milliseconds() - began) / 1e3 });
  },
  async start() {
    console.log(await token());
  },
};

initialized.then(questions[question]).then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
