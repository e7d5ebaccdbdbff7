-- From a consent link to API requests in Lua, with LuaJIT's FFI and cjson; see ../README.md.
--
--     export GHL_OAUTH_LIBRARY=../../target/release/libghl_oauth.so
--     luajit quickstart.lua "$(cat config.json)"

local cjson = require "cjson"
local ffi = require "ffi"

-- This file is interpreted: a compiled call that runs a callback would stop with "bad callback".
jit.off(true, true)

ffi.cdef [[
typedef struct ghl_client ghl_client;
typedef void (*ghl_event_callback)(const char *event, void *context);
typedef int32_t (*ghl_progress_callback)(const char *progress, void *context);
int32_t ghl_client_new(const char *config, ghl_client **client, char **out);
void ghl_client_free(ghl_client *client);
int32_t ghl_client_on_event(ghl_client *client, ghl_event_callback callback, void *context);
int32_t ghl_access_token(ghl_client *client, const char *id, char **token, char **out);
int32_t ghl_authorization_url(ghl_client *client, const char *json, char **out);
int32_t ghl_authorization_complete(ghl_client *client, const char *json, char **out);
int32_t ghl_oauth_installed_locations(ghl_client *client, const char *json, char **out);
int32_t ghl_request(ghl_client *client, const char *json, char **out);
int32_t ghl_tokens_mint(ghl_client *client, const char *json, ghl_progress_callback callback,
                        void *context, char **out);
void ghl_string_free(char *string);
]]

-- The name alone finds libghl_oauth.so, libghl_oauth.dylib or ghl_oauth.dll.
local library = ffi.load(os.getenv "GHL_OAUTH_LIBRARY" or "ghl_oauth")

-- Errors are tables: "sent" is cjson.null if it is unknown whether a request was sent.
local GhlError = {}
function GhlError:__tostring()
  return ("%s: %s; %s"):format(self.status, self.message, tostring(self.help))
end

-- Copies a string that the library returned, then wipes and frees it.
local function take(status, out)
  local text = out[0] ~= nil and ffi.string(out[0]) or ""
  library.ghl_string_free(out[0])
  if status ~= 0 then
    error(setmetatable(cjson.decode(text).error, GhlError), 0)
  end
  return text
end

-- A callback. An error must not leave it; it is reported, and the result is 0.
local function callback(type, f)
  return ffi.cast(type, function(text)
    local fine, result = pcall(f, ffi.string(text))
    if not fine then
      io.stderr:write(tostring(result), "\n")
    end
    return fine and result or 0
  end)
end

local Client = {}
Client.__index = Client

-- For the thread of this Lua state: callbacks run on it, inside a call.
function Client.new(config, on_event)
  local client, out = ffi.new "ghl_client *[1]", ffi.new "char *[1]"
  take(library.ghl_client_new(config, client, out), out)
  local listener = callback("ghl_event_callback", on_event)
  library.ghl_client_on_event(client[0], listener, nil)
  return setmetatable({client = client[0], listener = listener}, Client)
end

-- Calls a function that takes JSON, and in the case of a long one a callback, and returns JSON.
function Client:call(name, params, progress)
  local f, json, out = library["ghl_" .. name], cjson.encode(params), ffi.new "char *[1]"
  local status = progress and f(self.client, json, progress, nil, out) or f(self.client, json, out)
  return cjson.decode(take(status, out))
end

function Client:access_token(id)
  local token, out = ffi.new "char *[1]", ffi.new "char *[1]"
  take(library.ghl_access_token(self.client, id, token, out), out)
  return take(0, token)
end

function Client:close()
  library.ghl_client_free(self.client)
  self.listener:free()
end

local client = Client.new(arg[1], function(event) print("event: " .. event) end)
local scopes = {"oauth.readonly", "oauth.write", "locations.readonly"}
local link = client:call("authorization_url", {scopes = scopes})
print("Open this link: " .. link.url)
io.write "Paste the URL to which the browser was redirected: "
io.flush()
local redirect = {redirectUrl = io.read(), state = link.state, timeoutMs = 20000}
local company = client:call("authorization_complete", redirect)
print(("connected: %s %s"):format(company.userType, company.resourceId))
print(("token of %d characters"):format(#client:access_token(company.resourceId)))
local query = {companyId = company.resourceId, isInstalled = true}
local id = client:call("oauth_installed_locations", query).items[1]._id
local request = {method = "GET", path = "/locations/" .. id, resourceId = id}
print(("%s: HTTP %d"):format(id, client:call("request", request).status))

local _, e = pcall(client.access_token, client, "unknown")
local facts = ", retryable: %s, sent: %s"
print("error: " .. e.status .. facts:format(tostring(e.retryable), tostring(e.sent)))
-- Without threads, a progress callback cancels by its result.
local stop = callback("ghl_progress_callback", function() return 1 end)
local everything = {companyId = company.resourceId, installed = true}
_, e = pcall(client.call, client, "tokens_mint", everything, stop)
print("cancelled: " .. e.status)
stop:free()
client:close()
