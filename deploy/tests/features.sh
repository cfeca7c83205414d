#!/usr/bin/env bash
# A build of the node and a build of the whole workspace compile dependencies with the same features, so that the second
# uses what the first has compiled.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

crates() { cargo tree --locked --edges normal,build --prefix none --format '{p} [{f}]' "$@" | sed 's/ (\*)$//' | sort -u; }

different=$(comm -23 <(crates -p chaos-gateway) <(crates --workspace))
if [ -n "$different" ]; then
  printf '%s\n' "These crates have more features in a build of the workspace. Name the features in gateway/Cargo.toml, too:" "$different" >&2
  exit 1
fi
