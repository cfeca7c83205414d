#!/usr/bin/env bash
# Runs every shell block of README.md and then of deploy/operating.md, in order, in one shell in a fresh copy of the repository, as a
# newcomer does who copies and pastes. It has a network of its own, so that the ports are those of the pages.
# Needs CHAOS_BIN (a built `chaos`, with `chaos-loadtest` beside it), redis-server, curl and openssl.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
: "${CHAOS_BIN:?the path of a built chaos}"
if [ "${CHAOS_README_ALONE:-}" != yes ]; then
  unshare --map-root-user --net true 2>/dev/null || {
    echo "this machine makes no network namespaces: the README's ports may be in use, so its commands are not tried" >&2
    exit 0
  }
  CHAOS_README_ALONE=yes exec unshare --map-root-user --net bash "${BASH_SOURCE[0]}"
fi
ip link set lo up 2>/dev/null || python3 -c '
import fcntl, socket, struct
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING'

built=$(dirname -- "$(realpath -- "$CHAOS_BIN")")
[ -x "$built/chaos-loadtest" ] || { echo "$built/chaos-loadtest is not built: cargo build --release --workspace --bins" >&2; exit 1; }
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

# A copy of what git knows, with its ignore rules.
mkdir "$work/chaos" "$work/bin"
git ls-files --cached --others --exclude-standard -z | xargs -0 cp --parents --no-dereference --target-directory "$work/chaos"
cd "$work/chaos"
git init --quiet
git add --all
git -c user.name=newcomer -c user.email=newcomer@example.org commit --quiet --message "a fresh clone"

# Building is not what is tried: cargo puts what is built where it would put it.
cat >"$work/bin/cargo" <<CARGO
#!/usr/bin/env bash
case "\$*" in
  "build --release") mkdir -p target && ln -sfn "$built" target/release ;;
  "run --release -p chaos-loadtest -- "*) shift 5 && exec "$built/chaos-loadtest" "\$@" ;;
  *) echo "the README builds in another way than its test knows: cargo \$*" >&2 && exit 1 ;;
esac
CARGO
chmod +x "$work/bin/cargo"

# The blocks behind `<!-- test: run -->`, one file each. There are no others.
python3 - "$work" <<'PYTHON'
import re, sys
index = 0
for page in ["README.md", "deploy/operating.md"]:
    blocks = re.findall(r"(<!-- test: run -->\n)?```sh\n(.*?)```", open(page).read(), flags=re.S)
    assert blocks, f"{page} has no commands"
    for mark, block in blocks:
        assert mark, f"a block of {page} is not tried:\n{block}"
        open(f"{sys.argv[1]}/block-{index:02}.sh", "w").write(block)
        index += 1
PYTHON

# What a person waits for before going on to the next block.
ready() {
  for _ in $(seq 200); do
    if "$built/chaos" health --ready --url "http://127.0.0.1:$1" >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  echo "the node on port $1 is not ready" >&2
  exit 1
}
cat >"$work/all.sh" <<'ALL'
umask 022
set -eu
for block in "$WORK"/block-*.sh; do
  if [ -n "${NODE:-}" ] && kill -0 "$NODE" 2>/dev/null; then ready 7400; fi
  if [ -n "${SECOND:-}" ] && kill -0 "$SECOND" 2>/dev/null; then ready 7401; ready 7402; fi
  printf '\n-- %s\n' "$(grep -v '^#' "$block" | head -n 1)"
  # Chats end at once, at the end of their input.
  . "$block" </dev/null
done
ALL
export -f ready
export built WORK=$work PATH="$work/bin:$PATH"
if ! bash -o pipefail "$work/all.sh" >"$work/out.log" 2>&1; then
  cat "$work/out.log" >&2
  echo "a command of the README failed" >&2
  exit 1
fi
grep '^-- ' "$work/out.log"

# holds WORDS: what was printed has them.
holds() { grep -qF -- "$1" "$work/out.log" || { cat "$work/out.log" >&2; echo "the README's commands did not print: $1" >&2; exit 1; }; }
holds 'Chat now   chaos chat --user alice'
holds 'You are Alice in General'
holds 'You are Bob in General'
holds 'How can I help?'
holds 'Ada has joined the conversation'
holds 'chaos-backup is whole'
holds 'chaos-restored is restored'
for secret in chaos-data/admin-key chaos-data/secret-key chaos-keys/admin-key chaos-keys/secret-key chaos-export.jsonl chaos-backup/secret-key; do
  [ "$(stat --format %a "$secret")" = 600 ] || { echo "$secret may be read by others" >&2; exit 1; }
done
left=$(git status --porcelain)
[ -z "$left" ] || { echo "git does not ignore what the README's commands make: $left" >&2; exit 1; }
echo "the README holds"
