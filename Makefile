# Everything that people and CI run. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Where `make deps` puts Go when the system's is too old.
export PATH := /usr/local/lib/spamtraps-go/bin:$(PATH)
export SPAMTRAPS_VERSION ?= dev

SERVICES := imap-collector lmtp-collector hpfeeds-bridge hpfeeds-broker
MODULES  := libs e2e $(addprefix services/,$(SERVICES))
PACKAGES := $(addsuffix /...,$(addprefix ./,$(MODULES)))

GOLANGCI_VERSION := v2.15.0
GOLANGCI := bin/golangci-lint-$(GOLANGCI_VERSION)

# A package's tests boot brokers of their own, and packages run side by side.
TEST_TIMEOUT ?= 20m
TEST = go test -race -shuffle=on -timeout $(TEST_TIMEOUT)

# The shared test broker and Dovecot stay for the next run of `go test` by hand; a run by make leaves nothing behind.
RIG_DOWN = docker rm -f -v spamtraps-rig-rabbitmq spamtraps-rig-dovecot >/dev/null 2>&1 || true

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: ## start everything, send mail, break it in mid-burst, count what arrived
	@tools/deps.sh demo
	@e2e/demo/demo.sh

.PHONY: demo-down
demo-down: ## remove the demo with all its data
	@e2e/demo/demo.sh down

.PHONY: deps
deps: ## install and start what demo and tests need (Debian, Ubuntu; as root)
	@tools/deps.sh test

.PHONY: images
images: ## build the images
	@tools/deps.sh demo
	@tools/images.sh

.PHONY: standin
standin: ## build base images from Debian packages, for hosts without a container registry
	@tools/deps.sh demo
	@tools/deps.sh standin
	@docker/standin/build.sh

.PHONY: build
build: ## build the programs into bin/
	@tools/deps.sh test
	@mkdir -p bin
	@for s in $(SERVICES); do CGO_ENABLED=0 GOWORK=off go build -C services/$$s -trimpath -tags netgo,osusergo \
		-ldflags "-s -w -X spamtraps.internal/libs/daemon.version=$(SPAMTRAPS_VERSION)" -o ../../bin/$$s . ; done

.PHONY: test
test: ## run the tests with the race detector, against real servers
	@tools/deps.sh test
	@tools/images.sh
	@trap '$(RIG_DOWN)' EXIT; $(TEST) work

.PHONY: campaign
campaign: ## run the tests with every campaign in full length (hours)
	@tools/deps.sh test
	@tools/images.sh
	@trap '$(RIG_DOWN)' EXIT; CAMPAIGN=full go test -race -count=1 -p 1 -timeout 4h work

.PHONY: check
check: build $(GOLANGCI) bin/deadcode ## check format, lint, vet, modules, generated pages, compose.yaml
	@$(GOLANGCI) run $(PACKAGES)
	@$(GOLANGCI) fmt --diff $(PACKAGES)
	@for m in $(MODULES); do echo "check: $$m"; (cd $$m; export GOWORK=off; go mod tidy -diff; go build -o /dev/null ./...; go vet ./...); done
	@go mod verify >/dev/null
	@unused=$$(bin/deadcode -test work); [ -z "$$unused" ] || { echo "check: nothing calls these:"; echo "$$unused"; exit 1; }
	@tools/pages.sh --check
	@tools/compose-check.sh

.PHONY: bench
bench: ## measure the chain against its limit, in one run, as ratios (an hour)
	@tools/deps.sh test
	@tools/images.sh
	@trap '$(RIG_DOWN)' EXIT; go test -run "^$$" -bench . -benchtime 1x -p 1 -timeout 2h ./e2e/bench ./services/lmtp-collector ./services/hpfeeds-bridge ./services/imap-collector

.PHONY: tidy
tidy: ## make go.mod and go.sum of all modules agree
	@go work sync
	@for m in $(MODULES); do (cd $$m; GOWORK=off go mod tidy); done

.PHONY: fmt
fmt: build $(GOLANGCI) ## format the code and renew docs/config.md and docs/monitoring.md
	@$(GOLANGCI) fmt $(PACKAGES)
	@tools/pages.sh

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION) (some minutes, once)"
	@mkdir -p bin
	@GOWORK=off GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv bin/golangci-lint $@

# The small tools, pinned in a module of their own so that they choose no version for the programs.
bin/deadcode: tools/go.mod
	@mkdir -p bin
	@GOWORK=off GOBIN=$(CURDIR)/bin go -C tools install tool
	@touch $@
