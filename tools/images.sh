#!/usr/bin/env bash
# Builds the project's images, all or those named (rabbitmq postfix lmtp-collector demo). Docker's layer cache makes an
# unchanged one a matter of a second. The classic builder and BuildKit both do.
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
	if ! out=$(docker build -t "$prefix/$name:$version" "${args[@]}" --build-arg "VERSION=$version" \
		--build-arg "REVISION=$revision" --build-arg "CREATED=$created" "$@" 2>&1); then
		printf '%s\n' "$out" | tail -40 >&2
		printf 'images: building %s failed\n' "$name" >&2
		exit 1
	fi
	printf 'images: %s/%s:%s %s\n' "$prefix" "$name" "$version" \
		"$(docker image inspect -f '{{.Size}}' "$prefix/$name:$version" | numfmt --to=si --suffix=B)" >&2
}

[ $# -gt 0 ] || set -- rabbitmq postfix lmtp-collector demo
for name; do
	case $name in
	rabbitmq | postfix) image "$name" "docker/$name" ;;
	lmtp-collector) image "$name" --build-arg "SERVICE=$name" -f docker/Dockerfile . ;;
	demo) image demo -f e2e/demo/Dockerfile . ;;
	*)
		printf 'images: there is no image %s\n' "$name" >&2
		exit 2
		;;
	esac
done
