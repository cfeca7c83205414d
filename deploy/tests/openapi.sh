#!/usr/bin/env bash
# Holds a running node against its own OpenAPI document with a property-based client: with every kind of credential,
# no request of the document's making or unmaking may get a 500 or an answer that the document does not describe, and
# every operation must give a success for each kind that it is for.
# Needs CHAOS_BIN (a built `chaos`) and CHAOS_SCHEMATHESIS (schemathesis in a virtual environment; deploy/test.sh sees to both).
set -euo pipefail
: "${CHAOS_BIN:?the path of a built chaos}"
: "${CHAOS_SCHEMATHESIS:?the path of schemathesis in its virtual environment}"
exec "$(dirname -- "$CHAOS_SCHEMATHESIS")/python" "$(dirname -- "${BASH_SOURCE[0]}")/openapi.py" "$(realpath -- "$CHAOS_BIN")"
