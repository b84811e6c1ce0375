# What people run. Every target installs what it needs, and all share one compiled copy of the dependencies, outside the
# checkout.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/gristmill-target

GUEST_TARGET := wasm32-wasip2
GUESTS := $(CARGO_TARGET_DIR)/guests
PEER_TARGET := $(CARGO_TARGET_DIR)/peer
GRISTMILL := $(CARGO_TARGET_DIR)/debug/gristmill
QUICKSTART := examples/quickstart
# Our own crates as they ship; the dependencies are as they ship in any case, and are not compiled again.
AS_SHIPPED := --config profile.dev.opt-level=3 --config profile.dev.debug-assertions=false \
	--config profile.dev.overflow-checks=false

.PHONY: help demo test soak lint fmt bench bench-peer setup build guests clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:
	@scripts/setup

build: setup
	cargo build --locked --package gristmill

guests: setup
	CARGO_TARGET_DIR=$(GUESTS) cargo build --locked --target $(GUEST_TARGET) --profile guest \
		--package quickstart-orders --package quickstart-receipts --package gristmill-plugin-log
	@mkdir -p $(QUICKSTART)/components plugins/components
	@cp $(GUESTS)/$(GUEST_TARGET)/guest/quickstart_*.wasm $(QUICKSTART)/components/
	@cp $(GUESTS)/$(GUEST_TARGET)/guest/gristmill_plugin_*.wasm plugins/components/

demo: build guests ## Build everything and run the quickstart to its end
	@rm -rf $(QUICKSTART)/data
	@$(GRISTMILL) run --config $(QUICKSTART)/runtime.toml --log error --until-idle --publish $(QUICKSTART)/events.ndjson

test: setup lint ## Run everything that continuous integration runs
	@scripts/setup tests
	cargo test --locked --workspace --exclude gristmill-guest-components

soak: setup ## Run the random tests of the queue for longer, with new seeds
	GRISTMILL_SOAK=1 cargo test --locked --package gristmill-queue

lint: setup ## Check format, lints and documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings

fmt: ## Format the code
	cargo fmt --all

bench: setup guests ## Measure against the floors; prints a table and writes bench.json to the target directory
	scripts/bench-guests
	cargo bench --locked --profile dev $(AS_SHIPPED) --package gristmill --bench host
	cargo bench --locked --profile dev $(AS_SHIPPED) --package gristmill-queue --bench queue

bench-peer: setup ## The same beside arch-event-queues; compiles a RocksDB of its own, which takes long
	cargo build --release --manifest-path tests/benches/peer/Cargo.toml --target-dir $(PEER_TARGET)
	GRISTMILL_PEER=$(PEER_TARGET)/release/gristmill-bench-peer \
		cargo bench --locked --profile dev $(AS_SHIPPED) --package gristmill-queue --bench queue -- peer

clean: ## Remove what the demo left; the compiled dependencies stay
	rm -rf $(QUICKSTART)/data $(QUICKSTART)/components plugins/components
