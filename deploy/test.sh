#!/usr/bin/env bash
# Everything that must hold before a change lands: format, lints, documentation, tests, and the suites in deploy/tests.
#
#   deploy/test.sh                 all steps
#   deploy/test.sh fmt clippy      some of them: fmt clippy docs test races typescript suites
#
# Missing programs are installed where that is possible (root on Debian or Ubuntu); elsewhere it says what to install and ends with 2.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly SCHEMATHESIS=4.32.5
readonly CHECK_JSONSCHEMA=0.39.0
readonly ALL="fmt clippy docs test races typescript suites"
step_number=0
step_total=0

say() { printf '%s\n' "$*" >&2; }
give_up() {
  say "$*"
  exit 2
}

heading() {
  step_number=$((step_number + 1))
  printf '\n==== %d/%d %s ====\n' "$step_number" "$step_total" "$*"
}

has() { command -v "$1" >/dev/null 2>&1; }

# install PROGRAM DEBIAN-PACKAGE...: makes sure that a program is there.
install() {
  local program=$1
  shift
  if has "$program"; then return; fi
  if ! has apt-get || [ "$(id -u)" -ne 0 ]; then
    give_up "$program is missing. Install it (Debian and Ubuntu: apt-get install $*; elsewhere the package of that name) and run this again."
  fi
  say "installing $*"
  without_starting_services apt-get update -qq
  without_starting_services apt-get install -y -qq --no-install-recommends "$@"
  has "$program" || give_up "$* did not bring $program: install it and run this again."
}

# Runs a command during which packages start no services: the tests start their own servers, and one on the
# usual port would only be in the way of whoever owns the machine.
without_starting_services() (
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  DEBIAN_FRONTEND=noninteractive "$@" >/dev/null
)

# Whether any test names this variable, and so needs what stands behind it.
wanted() { grep -rqs --include='*.rs' --include='*.sh' -e "$1" gateway/tests loadtest/tests deploy/tests; }

prepare() {
  has cargo || give_up "cargo is missing: install Rust (https://rustup.rs) and run this again."
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt || give_up "rustfmt is missing: rustup component add rustfmt"
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy || give_up "clippy is missing: rustup component add clippy"
  install cc build-essential
  install make make
  install redis-server redis-server redis-tools
  install redis-sentinel redis-sentinel
  install redis-cli redis-tools
  install nginx nginx-light
  install curl curl ca-certificates
  install python3 python3
  install openssl openssl
  if wanted CHAOS_SCHEMATHESIS; then
    CHAOS_SCHEMATHESIS=$(python_tool schemathesis "$SCHEMATHESIS")
    export CHAOS_SCHEMATHESIS
  fi
  if wanted CHAOS_CHECK_JSONSCHEMA; then
    CHAOS_CHECK_JSONSCHEMA=$(python_tool check-jsonschema "$CHECK_JSONSCHEMA")
    export CHAOS_CHECK_JSONSCHEMA
  fi
  if [ -f protocol/clients/typescript/package.json ]; then install node nodejs npm; fi
  if wanted CHAOS_CHROMIUM; then
    install chromium chromium
    CHAOS_CHROMIUM=$(command -v chromium)
    export CHAOS_CHROMIUM
  fi
  # The clocks of nodes are stepped through the one, their syncs are seen through the other.
  if has apt-get && [ "$(id -u)" -eq 0 ]; then
    install faketime faketime
    install strace strace
  fi
  # A test that opens many connections needs as many descriptors as it may have.
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
}

# python_tool NAME VERSION: a program from PyPI, in a folder of its own that outlives this run. Prints where it is.
python_tool() {
  local venv=$PWD/target/$1-$2
  if [ ! -x "$venv/bin/$1" ]; then
    install python3 python3
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
      [ "$(id -u)" -eq 0 ] && has apt-get || give_up "Python's venv is missing (Debian and Ubuntu: apt-get install python3-venv): install it and run this again."
      without_starting_services apt-get update -qq
      without_starting_services apt-get install -y -qq --no-install-recommends python3-venv
    fi
    say "installing $1 $2"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$1==$2" >&2 || {
      rm -rf "$venv"
      give_up "$1 $2 cannot be installed by pip: see above."
    }
  fi
  printf '%s' "$venv/bin/$1"
}

fmt() {
  heading "format"
  cargo fmt --all --check
}

clippy() {
  heading "lints"
  python3 deploy/tests/imports.py
  deploy/tests/features.sh
  cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
}

docs() {
  heading "documentation"
  # Private items too, and links to them: nothing here is published, its readers are the ones who change it.
  RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --no-deps --workspace --all-features --document-private-items
}

tests() {
  heading "tests"
  cargo test --locked --workspace --all-features
}

# Hub and outbox under a model checker, which decides who goes on: a build of its own. CHAOS_RACES=N tries N interleavings of each kind.
races() {
  heading "races"
  RUSTFLAGS="${RUSTFLAGS:-} --cfg shuttle" cargo test --locked --package chaos-fanout --lib --target-dir "${CARGO_TARGET_DIR:-$PWD/target}/races" races::
}

# The TypeScript client: types, format, unit tests, tests against a node, and its size.
typescript() {
  heading "TypeScript"
  cargo build --locked --package chaos-gateway --bin chaos
  local program
  program=$(realpath "${CARGO_TARGET_DIR:-target}/debug/chaos")
  npm --prefix protocol/clients/typescript ci --no-progress
  CHAOS_BIN=$program npm --prefix protocol/clients/typescript test
}

suites() {
  heading "suites"
  local suite found=no
  for suite in deploy/tests/*.sh; do
    [ -x "$suite" ] || continue
    if [ "$found" = no ]; then
      cargo build --locked --release --workspace --bins
      CHAOS_BIN=${CARGO_TARGET_DIR:-$PWD/target}/release/chaos
      export CHAOS_BIN
      found=yes
    fi
    say "---- $suite"
    "$suite"
  done
  [ "$found" = yes ] || say "none in deploy/tests"
}

main() {
  local steps=("$@") step
  [ "${#steps[@]}" -gt 0 ] || read -ra steps <<<"$ALL"
  for step in "${steps[@]}"; do
    [[ " $ALL " == *" $step "* ]] || give_up "there is no step $step: give some of $ALL, or nothing for all of them."
  done
  step_total=${#steps[@]}
  prepare
  for step in "${steps[@]}"; do
    case $step in
      test) tests ;;
      *) "$step" ;;
    esac
  done
  printf '\nAll green, in %d min %d s.\n' $((SECONDS / 60)) $((SECONDS % 60))
}

main "$@"
