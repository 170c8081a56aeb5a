# The way in. Every target installs first what this machine lacks for it (only that needs root).
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo check test bench sim mutants exhaust fuzz recordings lab doc deps build
BUILD := $(or $(CARGO_TARGET_DIR),target)
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin:$(HOME)/.cargo/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: ## three real corosync nodes, one dies without warning: a timeline of who was told what and when
	@.ci/deps cluster
	@echo "demo: building (the first time takes a few minutes)"
	@cargo build --bins -p o2bridge -p o2bridge-e2e
	@$(BUILD)/debug/demo

check: ## format, clippy, unit tests: a minute or two, no cluster
	@.ci/deps check
	@.ci/steps format clippy unit

test: ## every test, on real clusters and on a real kernel in QEMU; ends with the counts
	@.ci/deps test
	@.ci/steps format clippy docs sim mutants exhaust every fuzz lab

bench: ## time from corosync's first word of a death to the shim's line, for 1 and 64 groups
	@.ci/deps cluster
	@cargo build --release --bins -p o2bridge -p o2bridge-e2e
	@$(BUILD)/release/latency

fuzz: ## what parses words from outside, TIME=60 seconds each; TARGET=name for one (tests/fuzz)
	@.ci/deps fuzz
	@tests/fuzz/run $(or $(TIME),60) $(TARGET)

sim: ## clusters in one thread, each under a seed: SEEDS=n, or SEED=x TRACE=1, or SCENARIO=file (tests/sim)
	@.ci/deps build
	@.ci/sim $(addprefix --seeds ,$(SEEDS)) $(addprefix --seed ,$(SEED)) $(addprefix --scenario ,$(SCENARIO)) $(if $(TRACE),--trace)

mutants: ## mutated cores, each of which the simulator must catch; MUTANT=name for one (tests/sim/mutants)
	@.ci/deps build
	@cargo run --quiet -p o2bridge-sim --bin mutants -- $(MUTANT)

lab: ## real kernels in QEMU: scenarios x kernels; KERNEL=6.1 SCENARIO=name for one (tests/lab)
	@.ci/deps lab
	@cargo build --bins -p o2bridge -p o2bridge-keeper -p o2bridge-lab
	@cargo build --examples -p o2bridge-kmod-ctl
	@$(BUILD)/debug/lab $(addprefix --kernel ,$(KERNEL)) $(addprefix --scenario ,$(SCENARIO))

exhaust: ## every order of what comes next in small clusters: DEPTH=7 START=split (tests/exhaust)
	@.ci/deps build
	@cargo run -q --release -p o2bridge-exhaust -- $(addprefix --depth ,$(DEPTH)) \
		$(addprefix --start tests/exhaust/starts/,$(addsuffix .txt,$(START)))

recordings: ## what real corosync tells its clients, anew into tests/sim/recordings; NAME=restart for one
	@.ci/deps cluster
	@cargo build --bins -p o2bridge-e2e
	@$(BUILD)/debug/confchgs $(addprefix tests/sim/recordings/,$(addsuffix .txt,$(or $(NAME),*)))

doc: ## the library documentation, in target/doc
	@.ci/deps build
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

build: ## o2bridged, o2bridge and o2bridge-keeper, in target/release
	@.ci/deps build
	@cargo build --release --bin o2bridged --bin o2bridge --bin o2bridge-keeper

deps: ## install whatever is missing for all of the above
	@.ci/deps test
