#!/usr/bin/env bash
# A short verified run for each fault, on each store that it can befall: nothing lost, doubled, reordered, foreign or missed.
# CHAOS_BIN is the node; chaos-loadtest lies beside it.
set -euo pipefail

readonly LOADTEST=${CHAOS_BIN%/*}/chaos-loadtest
log=$(mktemp)
trap 'rm -f "$log"' EXIT

has_faketime() { ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1; }
can_mount() {
  local folder
  folder=$(mktemp -d)
  if mount -t tmpfs tmpfs "$folder" 2>/dev/null; then umount "$folder" && rmdir "$folder"; else rmdir "$folder" && return 1; fi
}

# verify STORE FAULT [FLAG...], for so many seconds
seconds=5
verify() {
  local store=$1 fault=$2
  shift 2
  if ! "$LOADTEST" verify --chaos "$CHAOS_BIN" --store "$store" --faults "$fault" --seconds "$seconds" \
    --channels 4 --members 6 --rate 300 --payload 1500 --wait 60 "$@" >"$log" 2>&1; then
    cat "$log" >&2
    echo "a promise was broken, or nothing could be proven: $store, $fault" >&2
    return 1
  fi
  printf '%-9s %-10s %s\n' "$store" "$fault" "$(grep '^faults' "$log" || echo 'no fault struck')" >&2
}

for fault in kill term stop cut delay stall slow; do
  verify embedded "$fault"
  verify redis "$fault"
done
if has_faketime; then
  verify embedded clock
  verify redis clock
else
  echo "faketime is not installed: no clock is stepped" >&2
fi
if can_mount; then verify embedded disk; else echo "nothing can be mounted here: no disk is filled" >&2; fi
for store in redis sentinel cluster; do verify "$store" drop; done
verify redis store-kill
verify redis store-stop
verify sentinel store-stop
verify cluster store-kill
verify cluster migrate
# A replica may lack the newest writes when it takes over, unless acknowledgements wait for it.
seconds=8
verify sentinel failover --nodes 2 --node-flag=--redis-wait=1
verify cluster failover --nodes 2 --node-flag=--redis-wait=1
