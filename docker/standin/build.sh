#!/usr/bin/env bash
# Builds the base images that our Dockerfiles start from out of Debian's packages, for machines that reach no container
# registry. Each has a name of its own (spamtraps-standin/…), so nothing pretends to be an upstream image. An image is built
# again only when its recipe changed. Needs root and mmdebstrap (tools/deps.sh installs it).
set -euo pipefail
cd "$(dirname "$0")"

suite=trixie

# have NAME RECIPE: is there an image NAME whose label says that it was made by this recipe?
have() { [ "$(docker image inspect -f '{{index .Config.Labels "spamtraps.recipe"}}' "$1" 2>/dev/null)" = "$2" ]; }
say() { printf 'standin: %s\n' "$*" >&2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

debian=spamtraps-standin/debian:$suite
recipe="debian $suite 2"
if ! have "$debian" "$recipe"; then
	say "building $debian from Debian's packages (under a minute)"
	# unsafe-io: an image that a power cut spoils is built again; the option stays in the image, for what is installed there.
	mmdebstrap --quiet --variant=minbase --mode=root --include=ca-certificates --dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$work/base.tar"
	docker import --change "LABEL spamtraps.recipe=\"$recipe\"" --change 'CMD ["bash"]' "$work/base.tar" "$debian" >/dev/null
fi
base=$(docker image inspect -f '{{.Id}}' "$debian")

# rabbitmq: built in the engine, because its packages' scripts must run.
rabbitmq() {
	local name=spamtraps-standin/rabbitmq:4 recipe
	recipe=$(echo "$base" | cat - rabbitmq.Dockerfile | sha256sum | cut -c1-16)
	have "$name" "$recipe" && return
	say "building $name from Debian's packages (about a minute)"
	docker build -q -t "$name" --label "spamtraps.recipe=$recipe" --build-arg "DEBIAN_IMAGE=$debian" -f rabbitmq.Dockerfile . >/dev/null
}

# golang: Debian, and the Go release beside it without what only Go's own developers need: each step of a build looks at all
# files of its image. The CA bundle is this host's, because a module proxy inside a company is often signed by a CA that
# only the hosts know; the services' own image takes its CA file from here, too.
golang() {
	local name=spamtraps-standin/golang:1.26 recipe container
	recipe=$(echo "$base" | cat - ../../tools/go-toolchain.sh | sha256sum | cut -c1-16)
	have "$name" "$recipe" && return
	say "building $name (under a minute)"
	mkdir "$work/root"
	container=$(docker create "$debian")
	docker export "$container" | tar -x -C "$work/root"
	docker rm "$container" >/dev/null
	../../tools/go-toolchain.sh "$work/root/usr/local/go"
	(
		cd "$work/root/usr/local/go"
		rm -rf api doc misc test src/cmd
		find src -name testdata -type d -prune -exec rm -rf {} +
		find src -name '*_test.go' -delete
	)
	cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$work/root/etc/ssl/certs/ca-certificates.crt"
	tar -c -C "$work/root" . | docker import --change "LABEL spamtraps.recipe=\"$recipe\"" --change 'ENV GOTOOLCHAIN=local' \
		--change 'ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' --change 'CMD ["bash"]' - "$name" >/dev/null
}

# Side by side: one waits for Debian's mirror, the other for the module proxy.
rabbitmq &
rabbitmq=$!
golang
wait $rabbitmq
