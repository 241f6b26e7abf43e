#!/usr/bin/env bash
# Prints the names of the base images as NAME=value lines. Those of the environment or of .env win; else the upstream images
# are pulled; and when the container registry cannot be reached, the stand-ins of docker/standin take their place. The
# answer is kept in build/base-images.env, so that a registry is asked once only: delete it to ask again.
set -euo pipefail
cd "$(dirname "$0")/.."

kept=build/base-images.env
say() { printf 'images: %s\n' "$*" >&2; }

# setting NAME DEFAULT: the environment's value, else that of .env, else the default.
setting() {
	local name=$1 value=${!1:-}
	[ -n "$value" ] || [ ! -f .env ] || value=$(sed -n "s/^$name=//p" .env | tail -1)
	echo "${value:-$2}"
}
there() { docker image inspect "$1" >/dev/null 2>&1; }
# An engine whose registry hangs must not hang us: what does not come in five minutes counts as out of reach.
pull() { there "$1" || timeout 300 docker pull -q "$1" >/dev/null 2>&1; }

print() {
	printf 'DEBIAN_IMAGE=%s\nGO_IMAGE=%s\nRABBITMQ_IMAGE=%s\nRUNTIME_IMAGE=%s\n' "$1" "$2" "$3" "$(setting RUNTIME_IMAGE scratch)"
}

if [ -f "$kept" ]; then
	. "./$kept"
	if there "$DEBIAN_IMAGE" && there "$GO_IMAGE" && there "$RABBITMQ_IMAGE"; then
		case $DEBIAN_IMAGE in spamtraps-standin/*) docker/standin/build.sh ;; esac
		cat "$kept"
		exit 0
	fi
	unset DEBIAN_IMAGE GO_IMAGE RABBITMQ_IMAGE RUNTIME_IMAGE
fi

debian=$(setting DEBIAN_IMAGE debian:trixie-slim)
go=$(setting GO_IMAGE golang:1.26-trixie)
rabbitmq=$(setting RABBITMQ_IMAGE rabbitmq:4-management)
if ! pull "$debian"; then
	say "the container registry cannot be reached: building stand-ins for the base images from Debian's packages"
	command -v mmdebstrap >/dev/null || tools/deps.sh standin
	docker/standin/build.sh
	debian=spamtraps-standin/debian:trixie go=spamtraps-standin/golang:1.26 rabbitmq=spamtraps-standin/rabbitmq:4
else
	for image in "$go" "$rabbitmq"; do
		pull "$image" || { say "cannot pull $image although $debian came: name another one in .env, or try again"; exit 1; }
	done
fi
mkdir -p build
print "$debian" "$go" "$rabbitmq" >"$kept.new"
mv "$kept.new" "$kept"
cat "$kept"
