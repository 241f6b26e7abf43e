#!/usr/bin/env bash
# Makes sure that what `make demo` (deps.sh demo) or the tests (deps.sh test) need is there: on Debian or Ubuntu as root it
# installs and starts what is missing; elsewhere it says in one sentence what to install.
set -euo pipefail

# Where Go goes when the system's is too old; the Makefile looks there first.
go_home=/usr/local/lib/spamtraps-go
want=${1:-test}

say() { printf 'deps: %s\n' "$*" >&2; }
refuse() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

can_install() { [ "$(id -u)" = 0 ] && has apt-get; }

updated=
# install WHAT PACKAGE…: installs Debian packages, or says what is missing.
install() {
	local what=$1
	shift
	can_install || refuse "$what is missing: install it (Debian and Ubuntu: apt-get install $*), or run \`make deps\` as root."
	say "installing $*"
	export DEBIAN_FRONTEND=noninteractive
	if [ -z "$updated" ]; then apt-get update -qq && updated=1; fi
	apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

compose() { docker compose version >/dev/null 2>&1 || has docker-compose; }

# The client may be there while nobody listens: a fresh install, or a container without an init system.
start_engine() {
	docker info >/dev/null 2>&1 && return
	can_install && has dockerd || refuse "The Docker engine does not answer: start it, and see that \`docker info\` works for this user."
	say "starting the Docker engine"
	if [ -d /run/systemd/system ]; then
		systemctl start docker
	else
		service docker start >/dev/null 2>&1 || setsid dockerd >/var/log/dockerd.log 2>&1 &
	fi
	for _ in $(seq 60); do
		docker info >/dev/null 2>&1 && return
		sleep 1
	done
	refuse "The Docker engine did not start within 60 s: look at /var/log/dockerd.log or \`journalctl -u docker\`."
}

# What fetches Go where there is none.
fetch_tools() {
	has curl && has unzip && [ -e /etc/ssl/certs/ca-certificates.crt ] || install "curl or unzip (to fetch Go)" curl unzip ca-certificates
}

has docker || install "Docker Engine" docker.io
start_engine
compose || install "Compose" docker-compose
has docker || refuse "Docker's client is missing: install docker-cli."

case $want in
demo) exit 0 ;;
standin)
	has mmdebstrap || install "mmdebstrap (builds base images from Debian packages)" mmdebstrap
	fetch_tools
	exit 0
	;;
esac

has gcc || install "A C compiler (for the race detector)" gcc libc6-dev
/usr/bin/python3 -c 'import pika' 2>/dev/null || install "Python with pika (the Python consumer of docs/contract.md)" python3 python3-pika
has chromium || has google-chrome || install "Chromium (the tests look at the status pages with it)" chromium fonts-dejavu-core
has git || install "git" git
has strace || install "strace (the tests of the maildir watch and disturb system calls with it)" strace

# go_ok GO: is it a Go of our release or later?
go_ok() {
	local version
	version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
	[ "$(printf '%s\n' go1.26 "${version%%[ -]*}" | sort -V | head -1)" = go1.26 ]
}
go_ok go && exit 0
can_install || refuse "Go 1.26 is missing: install it from your system's packages or from the Go project's downloads."
fetch_tools
say "installing Go in $go_home, for this project only"
"$(dirname "$0")/go-toolchain.sh" "$go_home"
