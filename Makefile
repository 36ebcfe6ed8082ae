# make run    one gateway with two simulated providers, ready to be called
# make test   everything that must be true before a change lands (≤ 12 minutes on 2 idle cores)
# make prove  the full proof of an issue: make prove SUITE=bill
# make bench  speed against nginx, see docs/benchmarks.md
# make e2e-compose, make e2e-helm   what is shipped, as users start it: needs docker, or a cluster

SHELL := /bin/bash
.DEFAULT_GOAL := help
CRATES := proxyxai-proto proxyxai-core proxyxai-testkit proxyxai-data-plane
export SUITE_LOG := $(CURDIR)/target/suites.log

.PHONY: chart e2e-compose e2e-helm help run build test fmt clippy unit sdk prove bench bench-peers lint-proto manual refresh-prices

help:
	@sed -n 's/^# //p' Makefile | head -5

run: build
	@exec target/release/xai up --demo

# Without etcd, whose client needs protoc when it is built.
build:
	@scripts/require cargo cc space
	@cargo build --release --locked --package xai --bin xai --no-default-features

test:
	@scripts/require cargo cc python
	@mkdir -p target && : > $(SUITE_LOG)
	@scripts/suite fmt cargo fmt --all --check
	@scripts/suite clippy cargo clippy --workspace --all-targets --locked --quiet -- --deny warnings
	@scripts/suite build cargo test --workspace --no-run --locked --quiet
	@for crate in $(CRATES); do scripts/suite $$crate cargo test --locked --quiet --package $$crate || exit 1; done
	@for part in --lib --bins --test=it; do scripts/suite xai-$${part##*[-=]} \
	  cargo test --locked --quiet --package xai $$part || exit 1; done
	@for part in --lib --test=it --test=roles; do scripts/suite control-plane-$${part##*[-=]} \
	  cargo test --locked --quiet --package proxyxai-control-plane $$part || exit 1; done
	@scripts/suite rules scripts/rules
	@$(MAKE) --no-print-directory sdk
	@echo "Seconds per suite:" && cat $(SUITE_LOG)

fmt:
	@cargo fmt --all

# The official SDKs, pinned, against the real binary.
sdk: target/sdk/.ready
	@cargo build --locked --quiet --package xai
	@scripts/suite sdk target/sdk/bin/python -m pytest -q -p no:cacheprovider xai/tests/sdk

target/sdk/.ready: xai/tests/sdk/requirements.txt
	@scripts/require python
	@python3 -m venv --clear target/sdk
	@target/sdk/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# What is shipped, as a user starts it. Each says in one sentence what is not there.
e2e-compose: target/sdk/.ready
	@target/sdk/bin/python -B scripts/e2e-compose $(MODE)

e2e-helm:
	@scripts/e2e-helm

# A chart holds no files from outside its folder, so the rules and dashboards are copied; the tests compare them.
chart:
	@rm -rf helm/proxyxai/rules helm/proxyxai/dashboards && mkdir -p helm/proxyxai/rules helm/proxyxai/dashboards
	@cp deploy/prometheus/rules.yaml helm/proxyxai/rules/
	@cp deploy/grafana/dashboards/*.json helm/proxyxai/dashboards/

prove:
	@scripts/prove $(SUITE)

bench:
	@scripts/require cargo cc python3
	@scripts/bench

bench-peers:
	@scripts/require cargo cc python
	@scripts/bench --peers

lint-proto:
	@cd proto && npx --yes @bufbuild/buf@1.75.0 lint

# Writes docs/cli.md from what the program says of itself; the tests compare the two.
manual:
	@XAI_WRITE_MANUAL=1 cargo test --locked --quiet --package xai --test it -- the_manual the_published_schema

refresh-prices:
	@scripts/refresh-prices
