<?php
// What the vendor's PHP SDK stores, written by PHP's own session handlers and by PHP's MongoDB
// driver: the SDK is only on Packagist, and its published source defines these documents.
// php sessions.php TASK, where TASK is JSON.
$task = json_decode($argv[1], true);

function document(array $token): array
{
    return array_filter([
        'access_token' => $token['accessToken'],
        'refresh_token' => $token['refreshToken'] ?? null,
        'token_type' => 'Bearer',
        'scope' => $token['scope'] ?? null,
        'user_type' => $token['userType'],
        'company_id' => $token['companyId'] ?? null,
        'location_id' => $token['locationId'] ?? null,
        'expires_in' => 86399,
        'expire_at' => $token['expiresAt'],
    ], fn ($value) => $value !== null);
}

function owner(array $token): string
{
    return $token['locationId'] ?? $token['companyId'];
}

if (isset($task['folder'])) {
    session_save_path($task['folder']);
    session_id('visitor');
    session_start(['serialize_handler' => $task['handler'], 'use_cookies' => false]);
    $_SESSION['visits'] = 3;
    $_SESSION['name'] = 'Zoë | "quoted"; a:1:{';
    foreach ($task['tokens'] as $token) {
        $_SESSION['ghl_sessions']["{$task['app']}:" . owner($token)] = array_merge(
            document($token),
            ['createdAt' => new DateTime(), 'updatedAt' => new DateTime()],
        );
    }
    $_SESSION['last'] = new ArrayObject([1.5, null, false]);
    session_write_close();
} else {
    $write = new MongoDB\Driver\BulkWrite();
    foreach ($task['tokens'] as $token) {
        $key = ['applicationId' => $task['app'], 'resourceId' => owner($token)];
        $write->update($key, [
            '$set' => $key + document($token),
            '$setOnInsert' => ['createdAt' => new MongoDB\BSON\UTCDateTime()],
            '$currentDate' => ['updatedAt' => true],
        ], ['upsert' => true]);
    }
    (new MongoDB\Driver\Manager($task['mongo']))
        ->executeBulkWrite("{$task['database']}.application_sessions", $write);
}
