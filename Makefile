# Every target installs what it lacks (scripts/deps), and none needs another to have run first.

# More for cargo, such as --locked.
CARGO_FLAGS ?=

# Which tests on a real Kubernetes `make test` runs: the core, a minute; or the whole, which is all that test-kube runs.
GUIDES ?= core

DESTDIR ?=
BINDIR  ?= /usr/bin
CNIDIR  ?= /opt/cni/bin
UNITDIR ?= /usr/lib/systemd/system
ETCDIR  ?= /etc

# The linter of licences is built once per machine and version, beside the tree.
DENY_VERSION := 0.20.2
DENY_ROOT    := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/buoy/cargo-deny-$(DENY_VERSION)
DENY         := $(DENY_ROOT)/bin/cargo-deny

# rustup's place, and where nft and ip are, are not in everybody's PATH.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

# Where cargo puts things: CARGO_TARGET_DIR and cargo's own configuration count. Only recipes that
# follow a build look at it.
target = $(shell cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build demo demo-kube lab test test-kube bench lint image image-programs install install-built clean deps-build deps-lab deps-bench

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

build: deps-build ## build all programs (release)
	cargo build $(CARGO_FLAGS) --workspace --release

demo: deps-lab build ## the story of a floating IP, on one node and on three, in namespaces of this machine (root); BUOY_DEMO_STORE=etcd
	@$(target)/release/buoy-lab demo

demo-kube: deps-lab build ## the same in a real Kubernetes of three nodes, installed as an operator does (root)
	@scripts/kube-binary >/dev/null
	@$(target)/release/buoy-lab kube demo

lab: deps-lab build ## such a network to play in, until Ctrl-C (root)
	@$(target)/release/buoy-lab up

define build_tests
@echo '== build: programs and tests (dev profile); beside it, once per machine, the Kubernetes that they run against'
@{ scripts/kube-binary && scripts/helm-binary; } >/dev/null & kube=$$!; \
    cargo build $(CARGO_FLAGS) --workspace --bins --tests; built=$$?; \
    wait $$kube && exit $$built
endef

# A cluster at a time is enough for a machine.
guides_core := core_
guides_whole := --test-threads=1

define test_guides
@echo '== the guides on a real Kubernetes, with kubelet, containerd and kube-proxy on whole nodes: $(1)'
@cargo test $(CARGO_FLAGS) --workspace --test kube --no-fail-fast -- $(or $(guides_$(1)),$(error GUIDES is core or whole, not "$(1)"))
endef

# Every line selects the whole workspace, so that all of them agree on the features of dependencies
# and nothing is built twice; the lab finds the programs where the first puts them.
test: deps-build deps-lab ## all tests, in namespaces (root); the longer ones on Kubernetes only with GUIDES=whole
	@echo '== purity: api, core and cni-spec reach nothing outside'
	@scripts/purity --self-test
	@scripts/purity
	$(build_tests)
	@echo '== unit tests'
	@cargo test $(CARGO_FLAGS) --workspace --lib --bins --no-fail-fast
	@echo '== models and properties, stores, kernel adapters in namespaces'
	@cargo test $(CARGO_FLAGS) --workspace --exclude buoy-lab --test '*' --no-fail-fast
	@echo '== lab: nodes, workloads and clients in namespaces, containers by containerd'
	@# These wait more than they compute.
	@cargo test $(CARGO_FLAGS) --workspace --test lab --no-fail-fast -- --test-threads=4
	$(call test_guides,$(GUIDES))
	@echo '== examples in the documentation'
	@cargo test $(CARGO_FLAGS) --workspace --doc --no-fail-fast

test-kube: deps-build deps-lab ## tests on a real Kubernetes, with whole nodes in namespaces (root)
	$(build_tests)
	$(call test_guides,whole)

bench: deps-bench build ## numbers as a table, and as target/bench/results.json (root)
	@scripts/kube-binary >/dev/null
	@$(target)/release/buoy-lab bench

lint: deps-build $(DENY) ## formatting, clippy, licences, shell syntax
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	@# Advisories are another repository that must be fetched: not everybody who lints can.
	$(DENY) check --hide-inclusion-graph licenses bans sources
	for script in scripts/deps scripts/go-program scripts/helm-binary scripts/image scripts/kube-binary scripts/purity .ci/run; do sh -n $$script || exit 1; done

image: image-programs ## the container image, as target/image/buoy.oci.tar; prints its size and digest
	@scripts/image archive $(target)/image/programs $(target)/image/buoy.oci.tar

# What scripts/image and deploy/image/Containerfile put into it, and nothing else.
image-programs: build
	@# The plugins are copied to nodes, whose C library may be another.
	cargo rustc $(CARGO_FLAGS) --release --package buoy-cni --bin buoy-cni -- -C target-feature=+crt-static
	@rm -rf $(target)/image/programs
	@install -D -t $(target)/image/programs $(addprefix $(target)/release/,buoy-agent buoy-cni buoy-controller buoyctl)

# Beside its place first, so that a runtime never meets half a program.
put = install -D -m $(1) $(2) $(DESTDIR)$(3).new && mv -f $(DESTDIR)$(3).new $(DESTDIR)$(3)

install: build ## into DESTDIR=… (default /): programs, CNI plugins, systemd units
	@$(MAKE) --no-print-directory install-built

# What is in the directory BUILT; the tests install what they were built with.
BUILT ?= $(target)/release

install-built:
	$(call put,755,$(BUILT)/buoy-agent,$(BINDIR)/buoy-agent)
	$(call put,755,$(BUILT)/buoy-controller,$(BINDIR)/buoy-controller)
	$(call put,755,$(BUILT)/buoyctl,$(BINDIR)/buoyctl)
	$(call put,755,$(BUILT)/buoy-cni,$(CNIDIR)/calico)
	$(call put,755,$(BUILT)/buoy-cni,$(CNIDIR)/calico-ipam)
	$(call put,644,deploy/systemd/buoy-agent.service,$(UNITDIR)/buoy-agent.service)
	$(call put,644,deploy/systemd/buoy-controller.service,$(UNITDIR)/buoy-controller.service)
	$(call put,644,deploy/iproute2/buoy.conf,$(ETCDIR)/iproute2/rt_protos.d/buoy.conf)
	@# Settings are the operator's from the first installation on.
	test -e $(DESTDIR)$(ETCDIR)/buoy/agent.yaml || \
	    install -D -m 644 deploy/systemd/agent.yaml $(DESTDIR)$(ETCDIR)/buoy/agent.yaml

clean: deps-build ## remove what was built
	cargo clean

deps-build deps-lab deps-bench:
	@scripts/deps $(@:deps-%=%)

$(DENY): | deps-build
	@echo 'building cargo-deny $(DENY_VERSION): some minutes, once'
	@env -u CARGO_TARGET_DIR cargo install --quiet --locked --version $(DENY_VERSION) --root $(DENY_ROOT) cargo-deny
