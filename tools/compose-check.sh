#!/usr/bin/env bash
# Checks compose.yaml: Compose can read it, and .env.example documents every variable that it takes, and no other.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/compose.sh config -q
taken=$(grep -v '^[[:space:]]*#' compose.yaml | grep -oE '\$\{[A-Za-z_]+' | sed 's/\${//' | sort -u)
documented=$(grep -oE '^#? ?[A-Za-z_]+=' .env.example | tr -d '#= ' | sort -u)
diff <(echo "$taken") <(echo "$documented") >/dev/null || {
	echo "compose.yaml and .env.example differ (< only in compose.yaml, > only in .env.example):" >&2
	diff <(echo "$taken") <(echo "$documented") | grep '^[<>]' >&2
	exit 1
}
