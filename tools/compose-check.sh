#!/usr/bin/env bash
# Checks compose.yaml: Compose can read it, and .env.example documents every variable that it takes, and no other.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/compose.sh config -q
# ${NAME:-default} anywhere, and a lone NAME: among a service's variables, which passes the environment's value on.
taken=$(grep -v '^[[:space:]]*#' compose.yaml | { grep -oE '\$\{[A-Za-z_]+|^      [A-Z][A-Z_]+:$' || true; } | tr -d '${: ' | sort -u)
documented=$(grep -oE '^#? ?[A-Za-z_]+=' .env.example | tr -d '#= ' | sort -u)
diff <(echo "$taken") <(echo "$documented") >/dev/null || {
	echo "compose.yaml and .env.example differ (< only in compose.yaml, > only in .env.example):" >&2
	diff <(echo "$taken") <(echo "$documented") | grep '^[<>]' >&2
	exit 1
}
