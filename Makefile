# Everything a developer or CI does here, by name. `make help` lists it.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

# Each tool has a module of its own under tools/, so that its dependencies never meet ours.
# `go tool` builds it once and keeps the program in Go's build cache.
BUF            = go tool -modfile=tools/buf/go.mod buf
CONTROLLER_GEN = go tool -modfile=tools/controller-gen/go.mod controller-gen
GOLANGCI_LINT  = go tool -modfile=tools/lint/go.mod golangci-lint
GOVULNCHECK    = go tool -modfile=tools/vuln/go.mod govulncheck
GOTESTSUM      = go tool -modfile=tools/test/go.mod gotestsum

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN     ?= bin
DIST    ?= dist
LDFLAGS  = -s -w -X main.version=$(VERSION)

# What `make test` and `make fuzz` work on: make test PKG=./internal/cart/... ARGS='-run TestMerge'
PKG      ?= ./...
ARGS     ?=
FUZZTIME ?= 1m
DURATION ?= 1h

##@ Use

.PHONY: help
help: ## List all of this
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET"} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run a sidecar here, with carts in a SQLite file (ARGS='--backend memory')
	go run ./cmd/sidecar $(ARGS)

.PHONY: build
build: ## Build static, stripped programs into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

# Container images without a container engine: make images IMAGES=sidecar PLATFORMS=linux/amd64,linux/arm64
IMAGES     ?=
IMAGE_REPO ?= sidecart
IMAGE_TAG  ?= dev
PLATFORMS  ?= linux/amd64

.PHONY: images
images: ## Build container images as OCI archives into dist/
	go -C tools/images run . --root '$(CURDIR)' --out '$(abspath $(DIST))' --version '$(VERSION)' \
	  --repository '$(IMAGE_REPO)' --tag '$(IMAGE_TAG)' --platform '$(PLATFORMS)' $(IMAGES)

.PHONY: image-redis
image-redis: ## Build an image of this machine's Debian package redis-server into dist/, for the demo without a registry
	mkdir -p '$(DIST)'
	go -C e2e/cluster/img build -trimpath -o "$$(hack/envtest-dir.sh)/mkimage" ./mkimage
	go run ./e2e/cluster/cmd redis-image '$(IMAGE_REPO)/redis:$(IMAGE_TAG)' '$(abspath $(DIST))/redis.oci.tar'

.PHONY: chart
chart: ## Pack the Helm chart into dist/
	$$(hack/envtest-dir.sh)/helm package charts/sidecart --destination $(DIST)

##@ Check

.PHONY: setup
setup: ## Install what the tests need and this machine lacks
	hack/setup.sh

.PHONY: test
test: setup ## Test every kind of thing, with the race detector and real servers
	@GOTESTSUM='$(GOTESTSUM)' hack/test.sh $(PKG) -- $(ARGS)

.PHONY: test-long
test-long: setup ## Test the same and all that takes long: every story, long histories, both releases side by side
	@LONG=1 GOTESTSUM='$(GOTESTSUM)' hack/test.sh $(PKG) -- $(ARGS)
	LONG=1 hack/compat.sh -compat.adds 5000

.PHONY: e2e
e2e: setup ## Test it on a real cluster only, as root, with every story (ARGS='-run TestUpgrade')
	@LONG=1 GOTESTSUM='$(GOTESTSUM)' hack/test.sh ./e2e/cluster/... ./e2e/stories -- $(ARGS)

.PHONY: compat
compat: setup ## Run this sidecar and that of the release before side by side (ARGS='-linear.ops 100000')
	hack/compat.sh $(ARGS)

.PHONY: lint
lint: ## Lint Go, the borders between the rooms, and proto
	$(GOLANGCI_LINT) run
	$(BUF) lint

.PHONY: verify
verify: ## Fail if generated code is stale, or formatting, vet, go.mod or proto compatibility is off
	BUF='$(BUF)' hack/verify.sh

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (1m), two at a time
	FUZZTIME=$(FUZZTIME) hack/fuzz.sh $(PKG)

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what is called
	GOVULNCHECK='$(GOVULNCHECK)' hack/vuln.sh

.PHONY: release-check
release-check: export RELEASE = 1
release-check: lint verify test-long ## All that a release must pass; fails where vulnerabilities cannot be looked up
	GOVULNCHECK='$(GOVULNCHECK)' hack/vuln.sh

.PHONY: bench
bench: ## Measure what locking costs; takes some minutes on an idle machine
	go run ./bench $(ARGS)

.PHONY: bench-docs
bench-docs: ## The same, and write docs/benchmarks.md with its plot
	go run ./bench -markdown docs/benchmarks.md $(ARGS)

.PHONY: cluster-up cluster-shell cluster-down
cluster-up: setup ## Start a Kubernetes cluster on this machine, as root (ARGS=3 for three nodes)
	go run ./e2e/cluster/cmd up $(ARGS)

cluster-shell: ## A shell in its network, with kubectl and helm; go run ./e2e/cluster/cmd help does more
	go run ./e2e/cluster/cmd shell

cluster-down: ## Stop it; nothing is left
	go run ./e2e/cluster/cmd down

.PHONY: bench-crowd
bench-crowd: ## Measure a hundred clients on one cart, for throughput, waits and fairness, and write docs/crowd.md
	go run ./bench -crowd 20s -markdown docs/crowd.md $(ARGS)

.PHONY: bench-events
bench-events: setup ## Measure how long events take on every backend, and what a thousand streams cost
	go run ./bench -events $(ARGS)

.PHONY: bench-backends
bench-backends: setup ## Measure every backend beside a plain loop on it, and write docs/benchmarks-backends.md
	go run ./bench -backends -rounds 5 -markdown docs/benchmarks-backends.md $(ARGS)

.PHONY: bench-calls
bench-calls: ## Measure what each call costs beside an empty one, and write docs/benchmarks-calls.md
	go run ./bench -calls 1s -rounds 5 -markdown docs/benchmarks-calls.md $(ARGS)

.PHONY: soak
soak: setup ## Make calls of all kinds on every backend in turn while things break, for DURATION (1h), and count what was acknowledged
	go test -tags long -count=1 -v -timeout 0 -run 'TestSoak$$' ./e2e/processes -soak $(DURATION) $(ARGS) | grep -E 'soak_test|^ *---|^(ok|FAIL|PASS)'

.PHONY: scale
scale: setup ## Measure the operator with 200 CartStorages and 2,000 pods (ARGS='-scale.rounds 240 -timeout 2h' for a quiet hour)
	KUBEBUILDER_ASSETS=$$(hack/envtest-dir.sh) go test -count=1 -v -run TestManyCartStorages ./internal/controller $(ARGS) | grep -v 'TLS handshake'

##@ Change

.PHONY: generate
generate: ## Regenerate code from proto and from the API types
	proto/generate.sh
	go generate ./...

.PHONY: fmt
fmt: ## Format Go code, sort imports, and fill prose to one width
	$(GOLANGCI_LINT) fmt
	git ls-files -z '*.go' '*.lua' '*.proto' '*.md' | xargs -0 go -C tools/wrap run . -dir '$(CURDIR)'

.PHONY: clean
clean: ## Remove what was built here
	rm -rf $(BIN) $(DIST)
