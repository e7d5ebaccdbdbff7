// From a consent link to API requests in Java 17, with JNA and Gson; see ../README.md.
//     export GHL_OAUTH_LIBRARY=../../target/release/libghl_oauth.so PORT=8089
//     export CLASSPATH=/usr/share/java/jna.jar:/usr/share/java/gson.jar
//     java Quickstart.java "$(cat config.json)"

import com.google.gson.Gson;
import com.sun.jna.*;
import com.sun.jna.ptr.PointerByReference;
import java.util.*;
import java.util.concurrent.CompletableFuture;

public class Quickstart {
    /** "help" may be null; "sent" is null if it is unknown whether a request was sent. */
    record GhlError(String status, String message, String help, boolean retryable, Boolean sent) {}
    record Failure(GhlError error) {}
    record Link(String url, String state) {}
    record Token(String userType, String resourceId) {}
    record Page(List<Map<String, Object>> items) {}
    record Response(int status) {}

    static class GhlException extends RuntimeException {
        final GhlError error;
        GhlException(GhlError error) {
            super(error.status + ": " + error.message + "; " + error.help);
            this.error = error;
        }
    }

    /** For any number of threads. Close it after every other call has returned. */
    static class Client implements AutoCloseable {
        interface EventCallback extends Callback { void invoke(Pointer json, Pointer context); }
        static final NativeLibrary LIBRARY = NativeLibrary.getInstance(
            System.getenv().getOrDefault("GHL_OAUTH_LIBRARY", "ghl_oauth"),
            Map.of(Library.OPTION_STRING_ENCODING, "UTF-8"));
        private final PointerByReference client = new PointerByReference();
        // A field, because the garbage collector must not take it.
        private final EventCallback listener = (json, context) ->
            System.out.println("event: " + json.getString(0, "UTF-8"));

        Client(String config) {
            PointerByReference out = new PointerByReference();
            take(invoke("ghl_client_new", config, client, out), out);
            invoke("ghl_client_on_event", client.getValue(), listener, null);
        }

        private static int invoke(String function, Object... arguments) {
            return LIBRARY.getFunction(function).invokeInt(arguments);
        }

        /** Copies a string that the library returned, then wipes and frees it. */
        private static String take(int status, PointerByReference out) {
            String text = out.getValue() == null ? null : out.getValue().getString(0, "UTF-8");
            LIBRARY.getFunction("ghl_string_free").invokeVoid(new Object[] {out.getValue()});
            if (status != 0) throw new GhlException(new Gson().fromJson(text, Failure.class).error);
            return text;
        }

        /** Calls a function that takes and returns JSON. */
        <T> T call(String function, Class<T> result, Map<String, ?> params) {
            PointerByReference out = new PointerByReference();
            int status = invoke(function, client.getValue(), new Gson().toJson(params), out);
            return new Gson().fromJson(take(status, out), result);
        }

        String accessToken(String resourceId) {
            PointerByReference token = new PointerByReference(), out = new PointerByReference();
            take(invoke("ghl_access_token", client.getValue(), resourceId, token, out), out);
            return take(0, token);
        }

        void cancel(String callId) {
            invoke("ghl_call_cancel", client.getValue(), callId);
        }

        public void close() {
            LIBRARY.getFunction("ghl_client_free").invokeVoid(new Object[] {client.getValue()});
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        try (Client client = new Client(arguments[0])) {
            Link link = client.call("ghl_authorization_url", Link.class,
                Map.of("scopes", List.of("oauth.readonly", "oauth.write", "locations.readonly")));
            System.out.println("Open this link: " + link.url);
            System.out.print("Paste the URL to which the browser was redirected: ");
            Token company = client.call("ghl_authorization_complete", Token.class,
                Map.of("redirectUrl", new Scanner(System.in).nextLine(), "state", link.state));
            System.out.println("connected: " + company.userType + " " + company.resourceId);
            String token = client.accessToken(company.resourceId);
            System.out.println("token of " + token.length() + " characters");
            Page page = client.call("ghl_oauth_installed_locations", Page.class,
                Map.of("companyId", company.resourceId, "isInstalled", true));
            Object id = page.items.get(0).get("_id");
            Response response = client.call("ghl_request", Response.class,
                Map.of("method", "GET", "path", "/locations/" + id, "resourceId", id));
            System.out.println(id + ": HTTP " + response.status);
            GhlError e = failure(() -> client.accessToken("unknown"));
            String facts = ", retryable: " + e.retryable + ", sent: " + e.sent;
            System.out.println("error: " + e.status + facts);
            var wait = Map.of("port", Integer.valueOf(System.getenv("PORT")), "callId", "wait");
            var waiting = CompletableFuture.supplyAsync(() ->
                failure(() -> client.call("ghl_authorization_listen", Token.class, wait)));
            while (!waiting.isDone()) { // repeated: no effect before the call has begun
                client.cancel("wait");
                Thread.sleep(20);
            }
            System.out.println("cancelled: " + waiting.join().status);
        }
    }

    static GhlError failure(Runnable call) {
        try {
            call.run();
        } catch (GhlException failed) {
            return failed.error;
        }
        return null;
    }
}
