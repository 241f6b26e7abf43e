#!/usr/bin/env bash
# Writes docs/config.md and docs/monitoring.md from the settings and the metrics that the built programs know; with --check it only tells which page is
# stale. What a page says before the tables stands in docs/NAME.head.md.
set -euo pipefail
cd "$(dirname "$0")/.."

# page NAME COMMAND prints a page.
page() {
	cat "docs/$1.head.md"
	for program in imap-collector lmtp-collector hpfeeds-bridge hpfeeds-broker; do
		printf '\n## %s\n\n' "$program"
		bin/"$program" "$2" --markdown
	done
}

stale=0
for made in config:config monitoring:metrics; do
	name=${made%:*}
	if [ "${1:-}" != --check ]; then
		page "$name" "${made#*:}" >"docs/$name.md.new"
		mv "docs/$name.md.new" "docs/$name.md"
	elif ! page "$name" "${made#*:}" | diff -u "docs/$name.md" -; then
		echo "docs/$name.md is stale: run \`make fmt\`" >&2
		stale=1
	fi
done
exit $stale
