#!/usr/bin/env bash
# Runs the examples of the Rust client against a fresh node, by the commands in their headers (ports aside).
# Needs CHAOS_BIN (a built `chaos`), cargo, curl and python3.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
examples=$PWD/protocol/clients/rust/examples
: "${CHAOS_BIN:?the path of a built chaos}"
chaos=$(realpath "$CHAOS_BIN")
cargo build --quiet --locked --package chaos-client --examples
programs=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/examples
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

wait_until() {
  for _ in $(seq 200); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  echo "timed out: $*" >&2
  tail -n 20 ./*.log >&2 || true
  exit 1
}

# header EXAMPLE: the shell commands in the example's header, with the built program and the ports of this run. The last
# command replaces the shell, so that a signal to the shell reaches it.
header() {
  local commands
  commands=$(awk '/^\/\/! ```sh$/ { inside = 1; next } /^\/\/! ```$/ { inside = 0 } inside { sub(/^\/\/! /, ""); print }' "$examples/$1.rs" |
    sed -e "s#cargo run -p chaos-client --example \([a-z_]*\) --#exec $programs/\1#" -e "s/127\.0\.0\.1:8080/127.0.0.1:$backend_port/")
  grep -q "exec $programs/$1 " <<<"$commands" || { echo "the header of $1 does not say how to run it" >&2; exit 1; }
  printf '%s\n' "$commands"
}

port=$(free_port) backend_port=$(free_port)
export CHAOS_URL=http://127.0.0.1:$port
"$chaos" --listen "127.0.0.1:$port" --limit requests_per_second=0 >node.log 2>&1 &
node=$!
wait_until curl -sf "$CHAOS_URL/readyz"

echo "-- token_backend"
header token_backend >token_backend.sh
grep -v '^curl' token_backend.sh >serve.sh
grep '^curl' token_backend.sh >login.sh
bash -euo pipefail serve.sh >backend.log 2>&1 &
wait_until grep -q listening backend.log
bash -euo pipefail login.sh >login.json
grep -q '^{"token":"[^"]*","expires_at":[0-9]*}$' login.json
sed 's/wonderland/guessed/' login.sh | bash -euo pipefail | grep -q 'wrong password'

echo "-- echo_bot"
header echo_bot >echo_bot.sh
bash -euo pipefail echo_bot.sh >echo.log 2>&1 &
bot=$!
wait_until grep -q 'is connected' echo.log
token=$(cut -d '"' -f 4 login.json)
send() { curl -sSf -o sent.json -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -d "{\"text\": \"$1\"}" "$CHAOS_URL/v1/channels/general/messages"; }
send "before the restart"
wait_until grep -q 'sent message [0-9]*: before the restart' echo.log

# The bot reconnects by itself.
kill -TERM "$node"
wait "$node"
"$chaos" --listen "127.0.0.1:$port" --limit requests_per_second=0 >>node.log 2>&1 &
wait_until curl -sf "$CHAOS_URL/readyz"
send "after the restart"
wait_until grep -q 'sent message [0-9]*: after the restart' echo.log
kill "$bot"
wait "$bot" || true

echo "-- history_export"
header history_export >history_export.sh
# More than one page.
for n in $(seq 210); do send "message $n"; done
bash -euo pipefail history_export.sh
# A second argument appends what came later.
send "later"
{ grep -v '^exec' history_export.sh; echo "exec $programs/history_export general 214 >> general.jsonl"; } | bash -euo pipefail
python3 - <<'PYTHON'
import json

messages = [json.loads(line) for line in open("general.jsonl")]
assert [message["number"] for message in messages] == list(range(1, 216)), len(messages)
texts = [(message["sender_id"], message["text"]) for message in messages]
assert texts[:4] == [(who, text) for text in ("before the restart", "after the restart") for who in ("alice", "echo-bot")], texts[:4]
assert texts[4:-1] == [("alice", f"message {n}") for n in range(1, 211)], texts[4:]
assert texts[-1] == ("alice", "later"), texts[-1]
PYTHON
echo "the examples run"
