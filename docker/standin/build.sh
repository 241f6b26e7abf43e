#!/usr/bin/env bash
# Builds the base images that our Dockerfiles start from out of Debian's packages, for machines that reach no container
# registry. Each has a name of its own (spamtraps-standin/…), so nothing pretends to be an upstream image. An image is built
# again only when its recipe changed. Needs root and mmdebstrap (tools/deps.sh installs it).
set -euo pipefail
cd "$(dirname "$0")"

suite=trixie
go_version=1.26.8

# have NAME RECIPE: is there an image NAME whose label says that it was made by this recipe?
have() { [ "$(docker image inspect -f '{{index .Config.Labels "spamtraps.recipe"}}' "$1" 2>/dev/null)" = "$2" ]; }
say() { printf 'standin: %s\n' "$*" >&2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

recipe="debian $suite 1"
if ! have "spamtraps-standin/debian:$suite" "$recipe"; then
	say "building spamtraps-standin/debian:$suite from Debian's packages (under a minute)"
	mmdebstrap --quiet --variant=minbase --mode=root --include=ca-certificates \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$work/base.tar"
	docker import --change "LABEL spamtraps.recipe=\"$recipe\"" --change 'CMD ["bash"]' \
		"$work/base.tar" "spamtraps-standin/debian:$suite" >/dev/null
fi
base=$(docker image inspect -f '{{.Id}}' "spamtraps-standin/debian:$suite")

# build NAME FILE CONTEXT ARG…: builds unless the image was made from this very recipe, base and arguments.
build() {
	local name=$1 file=$2 context=$3 recipe
	shift 3
	recipe=$(printf '%s\n' "$base" "$@" | cat - "$file" | sha256sum | cut -c1-16)
	have "$name" "$recipe" && return
	say "building $name from Debian's packages (about a minute)"
	docker build -q -t "$name" --label "spamtraps.recipe=$recipe" --build-arg "DEBIAN_IMAGE=spamtraps-standin/debian:$suite" \
		"$@" -f "$file" "$context" >/dev/null
}

build spamtraps-standin/rabbitmq:4 rabbitmq.Dockerfile .
cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$work/ca.crt"
build spamtraps-standin/golang:1.26 golang.Dockerfile "$work" --build-arg "GO_VERSION=$go_version" \
	${GOPROXY:+--build-arg "GOPROXY=$GOPROXY"}
