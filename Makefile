# Everything a person or CI runs. `make` alone lists the targets.

.DEFAULT_GOAL := help
.NOTPARALLEL:

CARGO ?= cargo
NODE ?= node
NPM ?= npm
# Where cargo puts binaries, so that the e2e tests find the one that was just built.
TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(abspath $(CARGO_TARGET_DIR)),$(CURDIR)/target)
CARILLON_BIN ?= $(TARGET_DIR)/debug/carillon
# More arguments for the node of `make run`, for example ARGS="--listen 127.0.0.1:4000".
ARGS ?=

# Features that are off unless asked for, and tested all the same.
FEATURES := --features carillon-adapter/socketioxide

heading = @printf '\n\033[1m== %s\033[0m  (%s)\n' '$(1)' "$$(date +%T)"

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Build a release, start a node with the demo chat and print its address
	@scripts/setup.sh build
	@scripts/client.sh
	@CARGO="$(CARGO)" scripts/run.sh $(ARGS)

.PHONY: test
test: setup fmt-check client lint unit doc e2e chaos-short ## Run everything that must pass, installing what is missing
	$(call heading,all tests passed)

.PHONY: ci
ci: test features ## What continuous integration runs

.PHONY: setup
setup:
	$(call heading,setup)
	@scripts/setup.sh test

.PHONY: client
client: ## Install the Socket.IO client that the gateway embeds
	$(call heading,client)
	@scripts/client.sh

.PHONY: fmt
fmt: ## Format the Rust code
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check:
	$(call heading,format)
	$(CARGO) fmt --all --check

.PHONY: lint
lint: ## Run clippy, warnings are errors
	$(call heading,clippy)
	$(CARGO) clippy --locked --workspace --all-targets $(FEATURES) -- -D warnings

.PHONY: features
features: ## Run clippy on every combination of features of every crate
	$(call heading,features)
	@CARGO="$(CARGO)" NODE="$(NODE)" scripts/features.sh

.PHONY: unit
unit: ## Run the Rust tests
	$(call heading,cargo test)
	$(CARGO) test --locked --workspace $(FEATURES)

.PHONY: doc
doc: ## Build the documentation, warnings are errors
	$(call heading,rustdoc)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace $(FEATURES) --no-deps --document-private-items

.PHONY: e2e
e2e: client ## Run the official clients and Node.js servers against real nodes
	$(call heading,end to end)
	$(CARGO) build --locked --bins --examples $(FEATURES)
	cd e2e && $(NPM) ci --no-audit --no-fund --loglevel=error
	cd e2e && NODE="$(NODE)" CARILLON_BIN="$(CARILLON_BIN)" ../scripts/e2e.sh

# Development builds, because their assertions are on. More arguments: ARGS="--scenario F7 --seed 1 --out DIR".
.PHONY: chaos
chaos: chaos-build ## Break a cluster under load in every way and check its promises (about ten minutes)
	$(call heading,chaos)
	$(TARGET_DIR)/debug/carillon-bench chaos --bin "$(CARILLON_BIN)" \
		--adapter redis,redis-sharded,interest --duration 0 --jobs 4 $(ARGS)

.PHONY: chaos-short
chaos-short: chaos-build
	$(call heading,chaos (the short selection))
	$(TARGET_DIR)/debug/carillon-bench chaos --bin "$(CARILLON_BIN)" --scenario short --quiesce 2 --jobs 3

.PHONY: chaos-build
chaos-build: client
	$(call heading,build)
	$(CARGO) build --locked --bins
	cd loadtest/peers/node && $(NPM) ci --no-audit --no-fund --loglevel=error

.PHONY: bench
bench: client ## Compare a release build with Node.js socket.io on the same work (loadtest/results)
	$(call heading,bench)
	$(CARGO) build --locked --release -p carillon -p carillon-loadtest --bins
	cd loadtest/peers/node && $(NPM) ci --no-audit --no-fund --loglevel=error
	$(TARGET_DIR)/release/carillon-bench compare

.PHONY: bench-cluster
bench-cluster: client ## The same for two nodes with a Redis between them
	$(call heading,bench of a cluster)
	$(CARGO) build --locked --release -p carillon -p carillon-loadtest --bins
	cd loadtest/peers/node && $(NPM) ci --no-audit --no-fund --loglevel=error
	$(TARGET_DIR)/release/carillon-bench compare --nodes 2 --programs carillon,node

.PHONY: clean
clean: ## Remove what the targets above made
	$(CARGO) clean
	rm -rf gateway/client/dist gateway/client/node_modules e2e/node_modules artifacts
