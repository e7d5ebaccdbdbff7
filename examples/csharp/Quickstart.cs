// From a consent link to API requests in C#, with P/Invoke; see ../README.md.
//     mcs -langversion:latest -r:System.Json Quickstart.cs
//     LD_LIBRARY_PATH=../../target/release PORT=8089 mono Quickstart.exe "$(cat config.json)"

using System;
using System.Json;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

class GhlException : Exception
{
    public readonly string Status, Help;
    public readonly bool Retryable;
    public readonly bool? Sent; // null if it is unknown whether a request was sent

    public GhlException(JsonValue e)
        : base((string)e["status"] + ": " + (string)e["message"] + "; " + (string)e["help"])
    {
        Status = e["status"];
        Help = e["help"];
        Retryable = e["retryable"];
        Sent = e["sent"] is JsonValue sent ? (bool)sent : (bool?)null;
    }
}

/// <summary>For any number of threads. Dispose of it after every other call has ended.</summary>
class GhlClient : IDisposable
{
    const string Dll = "ghl_oauth"; // libghl_oauth.so, libghl_oauth.dylib or ghl_oauth.dll
    delegate int Function(IntPtr c, byte[] json, out IntPtr result);
    delegate void EventCallback(IntPtr json, IntPtr context);

    [DllImport(Dll)] static extern int ghl_client_new(byte[] json, out IntPtr c, out IntPtr o);
    [DllImport(Dll)] static extern int ghl_client_on_event(IntPtr c, EventCallback f, IntPtr data);
    [DllImport(Dll)] static extern int ghl_call_cancel(IntPtr c, byte[] callId);
    [DllImport(Dll)] static extern void ghl_client_free(IntPtr c);
    [DllImport(Dll)] static extern void ghl_string_free(IntPtr s);
    [DllImport(Dll)]
    static extern int ghl_access_token(IntPtr c, byte[] id, out IntPtr token, out IntPtr error);
    [DllImport(Dll)] static extern int ghl_authorization_url(IntPtr c, byte[] s, out IntPtr o);
    [DllImport(Dll)] static extern int ghl_authorization_complete(IntPtr c, byte[] s, out IntPtr o);
    [DllImport(Dll)] static extern int ghl_authorization_listen(IntPtr c, byte[] s, out IntPtr o);
    [DllImport(Dll)]
    static extern int ghl_oauth_installed_locations(IntPtr c, byte[] s, out IntPtr o);
    [DllImport(Dll)] static extern int ghl_request(IntPtr c, byte[] s, out IntPtr o);

    readonly IntPtr client;
    readonly EventCallback listener; // a field, because the garbage collector must not take it

    GhlClient(string config)
    {
        Take(ghl_client_new(Utf8(config), out client, out IntPtr result), result);
        listener = (json, context) =>
            Console.WriteLine("event: " + Marshal.PtrToStringUTF8(json));
        ghl_client_on_event(client, listener, IntPtr.Zero);
    }

    public void Dispose() => ghl_client_free(client);

    static byte[] Utf8(string text) => Encoding.UTF8.GetBytes(text + "\0");

    /// <summary>Copies a string that the library returned, then wipes and frees it.</summary>
    static string Take(int status, IntPtr text)
    {
        string copy = Marshal.PtrToStringUTF8(text);
        ghl_string_free(text);
        return status == 0 ? copy : throw new GhlException(JsonValue.Parse(copy)["error"]);
    }

    /// <summary>Calls a function that takes and returns JSON, on another thread.</summary>
    async Task<JsonValue> Call(Function f, JsonObject json, CancellationToken cancel = default)
    {
        string id = Guid.NewGuid().ToString();
        json["callId"] = id;
        var call = Task.Run(() => Take(f(client, Utf8(json.ToString()), out IntPtr o), o));
        // Repeated, because a cancel has no effect before the call has begun.
        while (cancel.CanBeCanceled && await Task.WhenAny(call, Task.Delay(20)) != call)
            if (cancel.IsCancellationRequested) ghl_call_cancel(client, Utf8(id));
        return JsonValue.Parse(await call);
    }

    string AccessToken(string id)
    {
        Take(ghl_access_token(client, Utf8(id), out IntPtr token, out IntPtr error), error);
        return Take(0, token);
    }

    static void Main(string[] arguments)
    {
        using (var client = new GhlClient(arguments[0])) client.Run().GetAwaiter().GetResult();
    }

    async Task Run()
    {
        var scopes = new JsonArray("oauth.readonly", "oauth.write", "locations.readonly");
        var link = await Call(ghl_authorization_url, new JsonObject { ["scopes"] = scopes });
        Console.WriteLine("Open this link: " + (string)link["url"]);
        Console.Write("Paste the URL to which the browser was redirected: ");
        var redirect = new JsonObject { ["redirectUrl"] = Console.ReadLine() };
        var company = await Call(ghl_authorization_complete, redirect);
        string id = company["resourceId"];
        Console.WriteLine($"connected: {(string)company["userType"]} {id}");
        Console.WriteLine($"token of {AccessToken(id).Length} characters");
        var query = new JsonObject { ["companyId"] = id, ["isInstalled"] = true };
        id = (await Call(ghl_oauth_installed_locations, query))["items"][0]["_id"];
        var request = new JsonObject { ["method"] = "GET", ["path"] = "/locations/" + id };
        request["resourceId"] = id;
        Console.WriteLine($"{id}: HTTP {(await Call(ghl_request, request))["status"]}");
        try { AccessToken("unknown"); }
        catch (GhlException e)
        { Console.WriteLine($"error: {e.Status}, retryable: {e.Retryable}, sent: {e.Sent}"); }
        int port = int.Parse(Environment.GetEnvironmentVariable("PORT"));
        var brief = new CancellationTokenSource(300).Token;
        try { await Call(ghl_authorization_listen, new JsonObject { ["port"] = port }, brief); }
        catch (GhlException e) { Console.WriteLine($"cancelled: {e.Status}"); }
    }
}
