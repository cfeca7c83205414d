#!/usr/bin/env bash
# Runs the commands of the README against a fresh node, as they stand there but for ports and folders.
# Needs CHAOS_BIN (a built `chaos`, with `chaos-loadtest` beside it), redis-server, curl and openssl.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
root=$PWD
: "${CHAOS_BIN:?the path of a built chaos}"
chaos=$(realpath "$CHAOS_BIN")
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; pkill -P $$ 2>/dev/null || true; rm -rf "$work"' EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# block NAME: the shell blocks of the README that stand behind `<!-- test: NAME -->`.
block() {
  awk -v mark="<!-- test: $1 -->" '
    $0 == mark { armed = 1; next }
    armed && /^```sh$/ { inside = 1; armed = 0; next }
    inside && /^```$/ { inside = 0 }
    inside' "$root/README.md"
}

wait_until() {
  for _ in $(seq 200); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  echo "in vain: $*" >&2
  cat "$work"/*.log >&2 || true
  exit 1
}

for command in 'cargo run --release' 'deploy/test.sh' 'target/release/chaos chat --user alice' 'target/release/chaos chat --user bob'; do
  grep -qF "$command" README.md || { echo "the README lost: $command" >&2; exit 1; }
done

echo "-- a node with the demo"
cd "$work"
port=$(free_port)
"$chaos" --listen "127.0.0.1:$port" >node.log 2>&1 &
node=$!
wait_until curl -sf "http://127.0.0.1:$port/readyz"

echo "-- two terminals"
mkfifo alice.in bob.in
"$chaos" chat --user alice --url "ws://127.0.0.1:$port/v1/ws" <alice.in >alice.out 2>&1 &
exec 3>alice.in
"$chaos" chat --user bob --url "ws://127.0.0.1:$port/v1/ws" <bob.in >bob.out 2>&1 &
exec 4>bob.in
wait_until grep -q 'You are alice' alice.out
wait_until grep -q 'You are bob' bob.out
echo 'hi bob' >&3
wait_until grep -qx 'alice: hi bob' bob.out
echo 'hi alice' >&4
wait_until grep -qx 'bob: hi alice' alice.out
exec 3>&- 4>&-

echo "-- beside an application"
block tenant | sed "s/127\.0\.0\.1:7400/127.0.0.1:$port/" >tenant.sh
[ -s tenant.sh ]
echo 'echo "$APP" >tenant.app; echo "$KEY" >tenant.key' >>tenant.sh
bash -euo pipefail tenant.sh >tenant.out
grep -q 'How can I help?' tenant.out
grep -q 'Ada has joined' tenant.out

echo "-- a backup, checked and restored"
mkdir bin && ln -s "$chaos" bin/chaos
block backup >backup.sh
[ -s backup.sh ]
PATH="$work/bin:$PATH" bash -euo pipefail backup.sh >backup.out
grep -q 'chaos-backup is whole' backup.out
"$chaos" check --data chaos-restored

echo "-- the load test"
loadtest=$(dirname "$chaos")/chaos-loadtest
[ -x "$loadtest" ] || { echo "$loadtest is not built: cargo build --release --workspace --bins" >&2; exit 1; }
block loadtest | sed -e "s#cargo run --release -p chaos-loadtest --#$loadtest#" -e "s/127\.0\.0\.1:7400/127.0.0.1:$port/" -e 's/--seconds 10/--seconds 3/' >loadtest.sh
[ -s loadtest.sh ]
bash -euo pipefail loadtest.sh

kill -TERM "$node"
wait "$node"

echo "-- two nodes over Redis"
redis=$(free_port) first=$(free_port) second=$(free_port)
redis-server --port "$redis" --save '' --appendonly yes --dir "$work" >redis.log 2>&1 &
wait_until redis-cli -p "$redis" ping
block redis | sed -e "s/:7401/:$first/" -e "s/:7402/:$second/" -e "s/:6379/:$redis/" >redis.sh
[ -s redis.sh ]
echo 'echo $! >second.pid; jobs -p >nodes.pid; wait' >>redis.sh
PATH="$work/bin:$PATH" bash -euo pipefail redis.sh >nodes.log 2>&1 &
wait_until curl -sf "http://127.0.0.1:$first/readyz"
wait_until curl -sf "http://127.0.0.1:$second/readyz"
kill -TERM $(cat nodes.pid)
wait %% || true

echo "-- from the folder to Redis"
block move | sed -e "s/:6379/:$redis/" >move.sh
[ -s move.sh ]
APP=$(cat tenant.app) PATH="$work/bin:$PATH" bash -euo pipefail move.sh
"$chaos" --listen "127.0.0.1:$first" --redis "redis://127.0.0.1:$redis" --admin-key-file admin-key --secret-key-file chaos-data/secret-key >moved.log 2>&1 &
node=$!
wait_until curl -sf "http://127.0.0.1:$first/readyz"
curl -sf -H "Authorization: Bearer $(cat tenant.key)" "http://127.0.0.1:$first/v1/channels/help/messages" | grep -q 'How can I help?'
kill -TERM "$node"
wait "$node"
echo "the README holds"
