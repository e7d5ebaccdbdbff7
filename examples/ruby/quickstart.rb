# frozen_string_literal: true

# From a consent link to API requests in Ruby, with Fiddle; see ../README.md.
#
#     export GHL_OAUTH_LIBRARY=../../target/release/libghl_oauth.so PORT=8089
#     ruby quickstart.rb "$(cat config.json)"

require "fiddle/import"
require "json"

# The functions of the library. Fiddle releases the GVL during a call, so other threads run.
module Native
  extend Fiddle::Importer
  # Windows: ghl_oauth.dll; macOS: libghl_oauth.dylib
  dlload ENV.fetch("GHL_OAUTH_LIBRARY", "libghl_oauth.so")
  extern "int ghl_client_new(const char *config, void *client, void *out)"
  %w[free cancel].each { |name| extern "void ghl_client_#{name}(void *client)" }
  extern "int ghl_client_on_event(void *client, void *callback, void *context)"
  extern "int ghl_call_cancel(void *client, const char *call_id)"
  extern "int ghl_access_token(void *client, const char *id, void *token, void *out)"
  %w[authorization_url authorization_complete authorization_listen oauth_installed_locations
     request].each { |name| extern "int ghl_#{name}(void *client, const char *json, void *out)" }
  extern "void ghl_string_free(void *string)"
end

# An error of the library. +sent+ is nil if it is unknown whether a request was sent.
class GhlError < StandardError
  attr_reader :status, :help, :retryable, :sent

  def initialize(error)
    @status, @help, @retryable, @sent = error.values_at("status", "help", "retryable", "sent")
    super("#{status}: #{error["message"]}#{"; #{help}" if help}")
  end
end

# For any number of threads. Close it after every other call has returned.
class Client
  # Calls the block with the JSON of each event.
  def initialize(config, &listener)
    client = Fiddle::Pointer.new(0)
    take { |out| Native.ghl_client_new(config, client.ref, out) }
    @client = client
    types = [Fiddle::TYPE_VOIDP, Fiddle::TYPE_VOIDP]
    closure = Fiddle::Closure::BlockCaller.new(Fiddle::TYPE_VOID, types) do |json, _|
      listener.call(json.to_s)
    rescue StandardError => e
      warn e # an exception must not leave the callback
    end
    # The garbage collector must neither free nor move it.
    @listener = Fiddle::Pinned.new(closure)
    Native.ghl_client_on_event(@client, closure, nil)
    at_exit { Native.ghl_client_cancel(@client) } # Ruby's exit waits for calls on other threads.
  end

  # Calls a function that takes and returns JSON.
  def call(name, **params)
    JSON.parse(take { |out| Native.public_send("ghl_#{name}", @client, params.to_json, out) })
  end

  def access_token(id)
    token = Fiddle::Pointer.new(0)
    take { |out| Native.ghl_access_token(@client, id, token.ref, out) }
    string(token)
  end

  # Ends the calls in progress with this callId, from any thread.
  def cancel(call_id) = Native.ghl_call_cancel(@client, call_id)

  def close = (Native.ghl_client_free(@client); @client = nil)

  private

  # Thread#raise, Thread#kill and Ctrl-C wait until the call has returned: they must not unwind it.
  def take
    out = Fiddle::Pointer.new(0)
    status = Thread.handle_interrupt(Object => :never) { yield out.ref }
    text = string(out)
    raise GhlError, JSON.parse(text)["error"] unless status.zero?

    text
  end

  # Copies a string that the library returned, then wipes and frees it.
  def string(pointer)
    pointer.null? ? nil : pointer.to_s.force_encoding(Encoding::UTF_8)
  ensure
    Native.ghl_string_free(pointer)
  end
end

client = Client.new(ARGV.first) { |event| puts "event: #{event}" }
link = client.call("authorization_url", scopes: %w[oauth.readonly oauth.write locations.readonly])
puts "Open this link: #{link["url"]}"
print "Paste the URL to which the browser was redirected: "
$stdout.flush
url = $stdin.gets.chomp
company = client.call("authorization_complete", redirectUrl: url, state: link["state"])
id = company["resourceId"]
puts "connected: #{company["userType"]} #{id}"
puts "token of #{client.access_token(id).size} characters"
page = client.call("oauth_installed_locations", companyId: id, isInstalled: true)
id = page["items"].first["_id"]
answer = client.call("request", method: "GET", path: "/locations/#{id}", resourceId: id)
puts "#{id}: HTTP #{answer["status"]}"

begin
  client.access_token("unknown")
rescue GhlError => e
  puts "error: #{e.status}, retryable: #{e.retryable}, sent: #{e.sent.inspect}"
end
waiting = Thread.new { client.call("authorization_listen", port: ENV["PORT"].to_i, callId: "wait") }
waiting.report_on_exception = false
begin
  client.cancel("wait") until waiting.join(0.02) # no effect before the call has begun
rescue GhlError => e
  puts "cancelled: #{e.status}"
end
client.close
