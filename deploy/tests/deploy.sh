#!/usr/bin/env bash
# What deploy/ offers, as far as a machine without containers can try it: the image's build gets what it needs, compose.yaml fits the
# Compose specification, systemd accepts the unit, and nginx with the sample configuration stands in front of two real nodes.
# Needs CHAOS_BIN (a built `chaos`), CHAOS_CHECK_JSONSCHEMA, nginx, redis-server, curl and openssl; deploy/test.sh sees to them.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
: "${CHAOS_BIN:?the path of a built chaos}"
: "${CHAOS_CHECK_JSONSCHEMA:?the path of check-jsonschema}"
chaos=$(realpath -- "$CHAOS_BIN")
root=$PWD
work=$(mktemp -d)
pids=()
finish() {
  kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

fail() {
  echo "$*" >&2
  tail -n 20 "$work"/*.log >&2 || true
  exit 1
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_until() {
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  fail "waited for nothing: $*"
}

echo "-- the image"
python3 - deploy/container/Dockerfile "$work/context" <<'PYTHON'
"""Reads the Dockerfile as a builder does, and copies what it copies."""
import json, pathlib, re, shutil, sys

path, context = sys.argv[1], pathlib.Path(sys.argv[2])
text = re.sub(r"^\s*#.*\n", "", open(path).read(), flags=re.M)
instructions = [line.split(None, 1) for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.strip()]
stages = []
for name, value in instructions:
    assert name in "FROM RUN COPY USER WORKDIR VOLUME ENV EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT".split(), name
    if name == "FROM":
        stages.append([])
    stages[-1].append((name, value))
assert len(stages) == 2, "a stage that builds and one that runs"
build, run = stages
assert all(":" in value and ":latest" not in value for name, value in instructions if name == "FROM"), "images have versions"
ignored = open(path + ".dockerignore").read().splitlines()
for name, value in build:
    if name == "COPY":
        *sources, target = value.split()
        for source in sources:
            assert f"!{source}" in ignored, f"{source} is left out by the .dockerignore"
            into = context / target
            if pathlib.Path(source).is_dir():
                shutil.copytree(source, into, ignore=shutil.ignore_patterns("target", "node_modules"))
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, into)
last = {name: value for name, value in run}
assert re.match(r"[1-9]\d*", last["USER"]), "it runs as a user other than root, by its number"
assert json.loads(last["ENTRYPOINT"]) == ["/usr/local/bin/chaos"]
assert json.loads(last["HEALTHCHECK"].split("CMD ")[1])[1:] == ["health"]
assert last["STOPSIGNAL"] == "SIGTERM"
PYTHON
# Everything that the locked build reads is in the context.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo metadata --locked --offline --filter-platform "$host" --format-version 1 --manifest-path "$work/context/Cargo.toml" >/dev/null
rm -rf "$work/context"

echo "-- compose.yaml"
"$CHAOS_CHECK_JSONSCHEMA" --builtin-schema vendor.compose-spec deploy/compose.yaml

echo "-- the systemd unit"
if command -v systemd-analyze >/dev/null; then
  sed "s#/usr/local/bin/chaos#$chaos#" deploy/systemd/chaos.service >"$work/chaos.service"
  findings=$(systemd-analyze verify --man=no "$work/chaos.service" 2>&1) || fail "$findings"
  [ -z "$findings" ] || fail "$findings"
  systemd-analyze security --offline=true --threshold=20 --no-pager "$work/chaos.service" >"$work/security.log" || fail "the unit is too open"
else
  echo "systemd-analyze is not installed: the unit is not read" >&2
fi

echo "-- nginx in front of two nodes"
cd "$work"
umask 077
openssl rand -hex 32 >secret-key
echo "adm_$(openssl rand -hex 24)" >admin-key
redis=$(free_port) first=$(free_port) second=$(free_port) proxy=$(free_port)
redis-server --port "$redis" --save '' --appendonly yes --dir "$work" >redis.log 2>&1 &
pids+=($!)
wait_until redis-cli -p "$redis" ping
declare -A node
start_node() {
  CHAOS_LIMITS=unauthenticated_per_ip=3 "$chaos" --listen "127.0.0.1:$1" --redis "redis://127.0.0.1:$redis" --admin-key-file admin-key \
    --secret-key-file secret-key --trusted-proxies 127.0.0.1 --drain-window 2s >"node-$1.log" 2>&1 &
  node[$1]=$!
  pids+=($!)
  wait_until "$chaos" health --url "http://127.0.0.1:$1" --ready
}
start_node "$first"
start_node "$second"

mkdir nginx
sed -e "s/:7401/:$first/" -e "s/:7402/:$second/" "$root/deploy/nginx/upstream.conf" >nginx/upstream.conf
sed -e "s/listen 8080/listen 127.0.0.1:$proxy/" "$root/deploy/nginx/chaos.conf" >nginx/chaos.conf
cat >nginx/nginx.conf <<NGINX
pid nginx.pid;
error_log error.log;
daemon off;
worker_processes 2;
events { worker_connections 256; }
http {
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include upstream.conf;
    include chaos.conf;
}
NGINX
as_nobody=()
if [ "$(id -u)" -eq 0 ]; then
  chmod 711 "$work"
  chown -R nobody nginx
  as_nobody=(setpriv --reuid nobody --regid nogroup --clear-groups)
fi
"${as_nobody[@]}" nginx -p "$work/nginx" -c nginx.conf -e error.log -t >nginx.log 2>&1 || fail "nginx does not take the sample"
"${as_nobody[@]}" nginx -p "$work/nginx" -c nginx.conf -e error.log >nginx.log 2>&1 &
pids+=($!)
url=http://127.0.0.1:$proxy
wait_until curl -sf "$url/readyz"
[ "$(curl -s -o metrics.txt -w '%{http_code}' "$url/metrics")" = 404 ] || fail "the proxy shows metrics"

post() { curl -sS --fail-with-body -H "Authorization: Bearer $1" -H 'Content-Type: application/json' -d "$3" "$url$2"; }
field() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }
made=$(post "$(cat admin-key)" /v1/organizations '{"name": "Acme", "email": "team@acme.example"}')
organization=$(field id <<<"$made") owner=$(field secret <<<"$made")
app=$(post "$owner" "/v1/organizations/$organization/apps" '{"name": "Support"}' | field id)
key=$(post "$owner" "/v1/organizations/$organization/apps/$app/keys" '{"environment": "live"}' | field secret)
post "$key" /v1/users/batch '{"items": [{"id": "ada", "first_name": "Ada"}, {"id": "tim", "first_name": "Tim"}]}' >/dev/null
post "$key" /v1/channels '{"id": "help", "type": "group", "creator_id": "ada", "participant_ids": ["tim"]}' >/dev/null

echo "   chat through the proxy"
mkfifo ada.in tim.in
"$chaos" chat --user ada --channel help --url "$url" --app-key "$key" <ada.in >ada.log 2>&1 &
pids+=($!)
exec 3>ada.in
wait_until grep -q 'You are Ada' ada.log
"$chaos" chat --user tim --channel help --url "$url" --app-key "$key" <tim.in >tim.log 2>&1 &
pids+=($!)
exec 4>tim.in
wait_until grep -q 'You are Tim' tim.log
echo 'hello' >&3
wait_until grep -qx 'Ada: hello' tim.log

echo "   forwarded addresses are told apart, and cannot be claimed"
status() { curl -s -o status.txt -w '%{http_code}' --interface "$1" -H "X-Forwarded-For: ${2:-}" -H 'Authorization: Bearer sk_live_0' "$url/v1/users/ada"; }
in_a_row=0
for _ in $(seq 100); do
  if [ "$(status 127.0.0.2)" = 429 ]; then in_a_row=$((in_a_row + 1)); else in_a_row=0; fi
  if [ "$in_a_row" = 5 ]; then break; fi
done
[ "$in_a_row" = 5 ] || fail "the proxy's clients have no bucket"
others="$(status 127.0.0.3) $(status 127.0.0.3)"
[ "$others" = "401 401" ] || fail "another client shares the bucket: $others"
if grep -q 'not trusted' node-*.log; then fail "the nodes do not trust the proxy"; fi
for _ in $(seq 30); do status 127.0.0.2 10.9.8.7 >>claims.txt; echo >>claims.txt; done
grep -q 429 claims.txt || fail "a client chooses its address by itself"

echo "   a node that drains sends its clients to the other"
kill -TERM "${node[$first]}"
wait "${node[$first]}" || fail "the node did not drain"
for count in 1 2 3; do
  echo "after the first $count" >&3
  wait_until grep -qx "Ada: after the first $count" tim.log
done
curl -sf "$url/readyz" >/dev/null || fail "the proxy does not go to the other node"
post "$key" /v1/channels/help/messages '{"sender_id": "tim", "text": "over HTTP"}' >/dev/null
wait_until grep -qx 'Tim: over HTTP' ada.log
start_node "$first"
sleep 2.1 # the proxy's fail_timeout
kill -TERM "${node[$second]}"
wait "${node[$second]}" || fail "the second node did not drain"
echo 'after the second' >&4
wait_until grep -qx 'Tim: after the second' ada.log
[ "$(grep -c 'Tim: after the second' tim.log)" = 1 ] || fail "a message came twice"
exec 3>&- 4>&-
echo "deploy/ holds what it says"
