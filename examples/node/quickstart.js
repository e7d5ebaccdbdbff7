// From a consent link to API requests in Node.js, with koffi; see ../README.md.
//
//     npm install
//     export GHL_OAUTH_LIBRARY=../../target/release/libghl_oauth.so PORT=8089
//     node quickstart.js "$(cat config.json)"
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline/promises";
import { promisify } from "node:util";
import koffi from "koffi";

// Asynchronous calls run on worker threads with a stack of this size; the default is 128 KiB.
koffi.config({ async_stack_size: 1024 * 1024 });
const files = { win32: "ghl_oauth.dll", darwin: "libghl_oauth.dylib", linux: "libghl_oauth.so" };
const file = process.env.GHL_OAUTH_LIBRARY ?? files[process.platform];
let library;
try {
  library = koffi.load(file);
} catch (error) {
  console.error(`${file}: ${error.message}`);
  process.exit(1);
}
koffi.opaque("ghl_client");
koffi.proto("void ghl_event_callback(const char *event, void *context)");
// A string that the library returns: copied, then wiped and freed.
koffi.disposable("text", "char *", library.func("void ghl_string_free(void *string)"));
const create = library.func("int ghl_client_new(const char *, _Out_ ghl_client **, _Out_ text *)");
const listen = library.func("int ghl_client_on_event(ghl_client *, ghl_event_callback *, void *)");
const cancel = library.func("int ghl_call_cancel(ghl_client *client, const char *call_id)");
const cancelAll = library.func("void ghl_client_cancel(ghl_client *client)");
const free = library.func("void ghl_client_free(ghl_client *client)");
const awaitable = (name, results) =>
  promisify(library.func(`int ${name}(ghl_client *, const char *, ${results})`).async);
const accessToken = awaitable("ghl_access_token", "_Out_ text *token, _Out_ text *error");

class GhlError extends Error {
  constructor({ status, message, help, retryable, sent }) {
    super(`${status}: ${message}`);
    Object.assign(this, { name: "GhlError", status, help, retryable, sent });
  }

  static check(status, json) {
    if (status !== 0) throw new GhlError(JSON.parse(json).error);
  }
}

class Client {
  #client;
  #listener;
  #functions = {};

  constructor(config, onEvent) {
    const [client, out] = [[null], [null]];
    GhlError.check(create(JSON.stringify(config), client, out), out[0]);
    this.#client = client[0];
    this.#listener = koffi.register(onEvent, "ghl_event_callback *");
    listen(this.#client, this.#listener, null);
    process.on("exit", this.#stop);
  }

  // Node's exit waits for calls on worker threads, and they for their events on the main thread.
  #stop = () => [listen(this.#client, null, null), cancelAll(this.#client)];

  /** Calls a function that takes and returns JSON. An AbortSignal ends the call early. */
  async call(name, params, signal) {
    const [out, callId] = [[null], randomUUID()];
    const call = (this.#functions[name] ??= awaitable(name, "_Out_ text *out"));
    // Repeated, because a cancel has no effect before the worker thread has begun the call.
    const timer = signal && setInterval(() => signal.aborted && cancel(this.#client, callId), 20);
    try {
      const status = await call(this.#client, JSON.stringify({ ...params, callId }), out);
      GhlError.check(status, out[0]);
    } finally {
      clearInterval(timer);
    }
    return JSON.parse(out[0]);
  }

  async accessToken(resourceId) {
    const [token, out] = [[null], [null]];
    GhlError.check(await accessToken(this.#client, resourceId, token, out), out[0]);
    return token[0];
  }

  /** Call it after every other call has ended. */
  close() {
    process.off("exit", this.#stop);
    free(this.#client);
    koffi.unregister(this.#listener);
  }
}

try {
  const client = new Client(JSON.parse(process.argv[2] ?? "{}"), (event) =>
    console.log(`event: ${event}`));
  const scopes = ["oauth.readonly", "oauth.write", "locations.readonly"];
  const { url, state } = await client.call("ghl_authorization_url", { scopes });
  console.log(`Open this link: ${url}`);
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const prompt = "Paste the URL to which the browser was redirected: ";
  const redirectUrl = await terminal.question(prompt);
  terminal.close();
  const company = await client.call("ghl_authorization_complete", { redirectUrl, state });
  console.log(`connected: ${company.userType} ${company.resourceId}`);
  console.log(`token of ${(await client.accessToken(company.resourceId)).length} characters`);
  const query = { companyId: company.resourceId, isInstalled: true };
  const [{ _id: resourceId }] = (await client.call("ghl_oauth_installed_locations", query)).items;
  const request = { method: "GET", path: `/locations/${resourceId}`, resourceId };
  console.log(`${resourceId}: HTTP ${(await client.call("ghl_request", request)).status}`);

  await client.accessToken("unknown").catch(({ status, retryable, sent }) =>
    console.log(`error: ${status}, retryable: ${retryable}, sent: ${sent}`));
  const wait = { port: Number(process.env.PORT) };
  await client.call("ghl_authorization_listen", wait, AbortSignal.timeout(300)).catch((error) =>
    console.log(`cancelled: ${error.status}`));
  client.close();
} catch (error) {
  console.error(error.message, error.help ?? "");
  process.exitCode = 1;
}
