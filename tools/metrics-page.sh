#!/usr/bin/env bash
# Writes docs/monitoring.md from the metrics that the built programs register; with --check it only tells whether the page is stale. What
# the page says beside the tables stands in docs/monitoring.head.md.
set -euo pipefail
cd "$(dirname "$0")/.."

page() {
	cat docs/monitoring.head.md
	for program in lmtp-collector imap-collector hpfeeds-bridge hpfeeds-broker; do
		printf '\n## %s\n\n' "$program"
		bin/"$program" metrics --markdown
	done
}

if [ "${1:-}" = --check ]; then
	page | diff -u docs/monitoring.md - || {
		echo "docs/monitoring.md is stale: run \`make fmt\`" >&2
		exit 1
	}
else
	page >docs/monitoring.md.new
	mv docs/monitoring.md.new docs/monitoring.md
fi
