#!/bin/sh
# Moves the sessions of the vendor's SDK to the library. Stop the old program first.
# sh migrate.sh MONGO_URL, with the library's configuration in GHL_OAUTH_CONFIG
set -eu
MONGO_URL=$1
umask 077
mongoexport --uri "$MONGO_URL" --collection application_sessions --out sessions.ndjson
ghl-oauth import --dry-run sessions.ndjson
ghl-oauth import sessions.ndjson
ghl-oauth list
rm sessions.ndjson
