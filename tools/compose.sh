#!/usr/bin/env bash
# Runs Compose on compose.yaml, as the plugin (v2, v5) or as docker-compose (1.29), with the base images of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
set -a
[ ! -f build/base-images.env ] || . build/base-images.env
set +a
if docker compose version >/dev/null 2>&1; then
	exec docker compose "$@"
fi
exec docker-compose "$@"
