#!/bin/sh
# Refreshes the tokens that are due, every INTERVAL seconds, for a container without cron. SIGTERM
# ends it after the refreshes that were already sent.
umask 077
trap 'trap "" TERM INT; kill -TERM $!; wait $!; exit 0' TERM INT
while :; do
    ghl-oauth maintain --concurrency 8 &
    wait $! || echo "ghl-oauth maintain: exit status $?" >&2
    sleep "${INTERVAL:-300}" &
    wait $!
done
