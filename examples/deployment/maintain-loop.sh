#!/bin/sh
# Refreshes the tokens that are due, every INTERVAL seconds, for a container without cron. SIGTERM
# ends it after the refreshes that were already sent.
umask 077
child=
trap 'trap "" TERM INT; kill -TERM $child; wait $child; exit 0' TERM INT
while :; do
    ghl-oauth maintain --concurrency 8 &
    child=$!
    wait $child || echo "ghl-oauth maintain: exit status $?" >&2
    sleep "${INTERVAL:-300}" &
    child=$!
    wait $child
done
