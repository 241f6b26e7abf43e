#!/usr/bin/env bash
# Writes docs/config.md from the settings that the built programs know; with --check it only tells whether the page is stale.
set -euo pipefail
cd "$(dirname "$0")/.."

page() {
	cat <<-'MD'
	# Settings

	Made by `make fmt` from the programs themselves; `make check` fails when it is stale. A setting comes from the command
	line, else from the environment, else from the YAML file that `-f` or `FEED_CONFIG` names, else it has its default.
	`PROGRAM config` prints what is in force and where each value comes from.

	Every secret `X` can come from a file: `X_FILE=/path`, in YAML `x_file: /path`. The file is read again on each reconnect.
	A variable with one of a program's own prefixes that it does not know stops the start, as does an unknown key in the file.
	MD
	for program in imap-collector lmtp-collector hpfeeds-bridge hpfeeds-broker; do
		printf '\n## %s\n\n' "$program"
		bin/"$program" config --markdown
	done
}

if [ "${1:-}" = --check ]; then
	page | diff -u docs/config.md - || {
		echo "docs/config.md is stale: run \`make fmt\`" >&2
		exit 1
	}
else
	page >docs/config.md.new
	mv docs/config.md.new docs/config.md
fi
