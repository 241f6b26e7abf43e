#!/usr/bin/env bash
# Builds the project's images, all or those named (rabbitmq postfix dovecot imap-collector lmtp-collector hpfeeds-bridge
# hpfeeds-broker demo). Docker's layer cache makes an unchanged one a matter of a second. The classic builder and BuildKit both do.
set -euo pipefail
cd "$(dirname "$0")/.."

bases=$(tools/base-images.sh)
args=()
for line in $bases; do args+=(--build-arg "$line"); done
prefix=${SPAMTRAPS_IMAGE_PREFIX:-spamtraps}
version=${SPAMTRAPS_VERSION:-dev}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
created=$(git log -1 --format=%cI 2>/dev/null || true)

# image NAME ARG…: builds one image and prints only what went wrong. VERSION and REVISION come after all that is costly in
# each Dockerfile.
image() {
	local name=$1 out
	shift
	if ! out=$(docker build --shm-size 2g -t "$prefix/$name:$version" "${args[@]}" --build-arg "VERSION=$version" \
		--build-arg "REVISION=$revision" --build-arg "CREATED=$created" "$@" 2>&1); then
		printf '%s\n' "$out" | tail -40 >&2
		printf 'images: building %s failed\n' "$name" >&2
		exit 1
	fi
	printf 'images: %s/%s:%s %s\n' "$prefix" "$name" "$version" \
		"$(docker image inspect -f '{{.Size}}' "$prefix/$name:$version" | numfmt --to=si --suffix=B)" >&2
}

# build NAME: one of ours, by its name.
build() {
	case $1 in
	rabbitmq | postfix | dovecot) image "$1" "docker/$1" ;;
	imap-collector | lmtp-collector | hpfeeds-bridge | hpfeeds-broker) image "$1" --build-arg "SERVICE=$1" -f docker/Dockerfile . ;;
	demo) image demo -f e2e/demo/Dockerfile . ;;
	*)
		printf 'images: there is no image %s\n' "$1" >&2
		exit 2
		;;
	esac
}

# Side by side, since most of the time each of them waits for something; but our programs one after the other, because the first
# compiles all of them.
[ $# -gt 0 ] || set -- lmtp-collector imap-collector hpfeeds-bridge hpfeeds-broker postfix rabbitmq dovecot demo
programs=() builds=()
for name; do
	case $name in
	imap-collector | lmtp-collector | hpfeeds-bridge | hpfeeds-broker) programs+=("$name") ;;
	*)
		build "$name" &
		builds+=($!)
		;;
	esac
done
for name in ${programs[@]+"${programs[@]}"}; do build "$name"; done
code=0
for build in ${builds[@]+"${builds[@]}"}; do wait "$build" || code=$?; done
exit $code
