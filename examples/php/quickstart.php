<?php
// From a consent link to API requests in PHP, with FFI; see ../README.md.
//
//     export GHL_OAUTH_LIBRARY=../../target/release/libghl_oauth.so
//     php quickstart.php "$(cat config.json)"

declare(strict_types=1);

/** An error of the library. $sent is null if it is unknown whether a request was sent. */
final class GhlError extends RuntimeException
{
    public readonly string $status;
    public readonly ?string $help;
    public readonly bool $retryable;
    public readonly ?bool $sent;

    public function __construct(array $error)
    {
        ['status' => $this->status, 'help' => $this->help] = $error;
        ['retryable' => $this->retryable, 'sent' => $this->sent] = $error;
        parent::__construct("$this->status: {$error['message']}; $this->help");
    }
}

/** One thread at a time. Callbacks run inside a call, on its thread; they must not throw. */
final class GhlClient
{
    private const DECLARATIONS = <<<'C'
        typedef struct ghl_client ghl_client;
        typedef void (*ghl_event_callback)(const char *event, void *context);
        typedef int32_t (*ghl_progress_callback)(const char *progress, void *context);
        int32_t ghl_client_new(const char *config, ghl_client **client, char **out);
        void ghl_client_free(ghl_client *client);
        int32_t ghl_client_on_event(ghl_client *client, ghl_event_callback f, void *context);
        int32_t ghl_access_token(ghl_client *client, const char *id, char **token, char **out);
        int32_t ghl_authorization_url(ghl_client *client, const char *json, char **out);
        int32_t ghl_authorization_complete(ghl_client *client, const char *json, char **out);
        int32_t ghl_oauth_installed_locations(ghl_client *client, const char *json, char **out);
        int32_t ghl_request(ghl_client *client, const char *json, char **out);
        int32_t ghl_tokens_mint(ghl_client *client, const char *json, ghl_progress_callback f,
                                void *context, char **out);
        void ghl_string_free(char *string);
        C;

    private readonly FFI $library;
    private readonly FFI\CData $client;

    public function __construct(#[SensitiveParameter] string $config, Closure $onEvent)
    {
        // Windows: ghl_oauth.dll; macOS: libghl_oauth.dylib
        $file = getenv('GHL_OAUTH_LIBRARY') ?: 'libghl_oauth.so';
        $this->library = FFI::cdef(self::DECLARATIONS, $file);
        [$client, $out] = [$this->library->new('ghl_client *'), $this->library->new('char *')];
        $status = $this->library->ghl_client_new($config, FFI::addr($client), FFI::addr($out));
        $this->take($status, $out);
        $this->client = $client;
        $this->library->ghl_client_on_event($client, $onEvent, null);
    }

    public function __destruct()
    {
        if (isset($this->client)) {
            $this->library->ghl_client_free($this->client);
        }
    }

    /** Calls a function that takes JSON, further arguments for some, and returns JSON. */
    public function call(string $name, array $params, mixed ...$more): array
    {
        [$json, $out] = [json_encode($params, JSON_THROW_ON_ERROR), $this->library->new('char *')];
        $arguments = [$this->client, $json, ...$more, FFI::addr($out)];
        $status = $this->library->{"ghl_$name"}(...$arguments);
        return json_decode($this->take($status, $out), true);
    }

    public function accessToken(string $id): string
    {
        [$token, $out] = [$this->library->new('char *'), $this->library->new('char *')];
        $arguments = [$this->client, $id, FFI::addr($token), FFI::addr($out)];
        $this->take($this->library->ghl_access_token(...$arguments), $out);
        return $this->take(0, $token);
    }

    /** Copies a string that the library returned, then wipes and frees it. */
    private function take(int $status, FFI\CData $string): string
    {
        $text = FFI::isNull($string) ? '' : FFI::string($string);
        $this->library->ghl_string_free($string);
        return $status === 0 ? $text : throw new GhlError(json_decode($text, true)['error']);
    }
}

$client = new GhlClient($argv[1], function (string $event): void { echo "event: $event\n"; });
$scopes = ['oauth.readonly', 'oauth.write', 'locations.readonly'];
$link = $client->call('authorization_url', ['scopes' => $scopes]);
echo "Open this link: {$link['url']}\nPaste the URL to which the browser was redirected: ";
$redirect = ['redirectUrl' => trim(fgets(STDIN)), 'state' => $link['state']];
$company = $client->call('authorization_complete', $redirect + ['timeoutMs' => 20_000]);
$companyId = $company['resourceId'];
echo "connected: {$company['userType']} $companyId\n";
echo 'token of ', strlen($client->accessToken($companyId)), " characters\n";
$query = ['companyId' => $companyId, 'isInstalled' => true];
$id = $client->call('oauth_installed_locations', $query)['items'][0]['_id'];
$request = ['method' => 'GET', 'path' => "/locations/$id", 'resourceId' => $id];
$answer = $client->call('request', $request);
echo "$id: HTTP {$answer['status']}\n";

try {
    $client->accessToken('unknown');
} catch (GhlError $e) {
    [$retryable, $sent] = [json_encode($e->retryable), json_encode($e->sent)];
    echo "error: $e->status, retryable: $retryable, sent: $sent\n";
}
try { // without threads, a progress callback cancels by its result
    $stop = fn (string $progress): int => 1;
    $client->call('tokens_mint', ['companyId' => $companyId, 'installed' => true], $stop, null);
} catch (GhlError $e) {
    echo "cancelled: $e->status\n";
}
