# Everything that is done with this repository, by name. `make` lists it.

CARGO ?= cargo
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
LIBDIR ?= /usr/lib
DESTDIR ?=

TOOLS := target/tools
DENY_VERSION := 0.20.2
DENY := $(TOOLS)/bin/cargo-deny
BENCHES := $(sort $(patsubst tests/src/bin/%.rs,%,$(wildcard tests/src/bin/bench-*.rs)))

.DEFAULT_GOAL := help
.PHONY: help demo test chaos mutants live bench $(BENCHES) check fmt install clean

help: ## list the targets
	@echo "WebHost Fleet. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "%-12s %s\n", $$1, $$2 }'
	@for bench in $(BENCHES); do echo "  $$bench"; done

demo: ## a whole fleet on this machine: signup, reports, a decision, a live move (DEMO_STAY=1 keeps it running)
	@sh tests/deps.sh demo
	$(CARGO) build --release --locked --workspace --bins
	target/release/demo

test: ## every test, on real PostgreSQL and real processes
	@sh tests/deps.sh test
	$(CARGO) build --locked --workspace --all-targets
	@CARGO="$(CARGO)" sh tests/run.sh

chaos: ## every fault at every point of every step of a move (COUNT times, from SEED, ONLY what matches)
	@sh tests/deps.sh test
	$(CARGO) build --locked --workspace --bins
	target/debug/chaos

mutants: ## take away, one by one, what a move rests on, and show which test notices
	@sh tests/deps.sh test
	$(CARGO) run --locked --bin mutants

live: small ## two machines with a systemd each, installed as the README says; a move between them, as root
	@sh tests/deps.sh test
	$(CARGO) build --release --locked --workspace --bins
	sh tests/live.sh

bench: ## list the benchmarks; each runs by its own name
	@if [ -z "$(BENCHES)" ]; then echo "no benchmarks yet"; else \
	    echo "run one of:"; for bench in $(BENCHES); do echo "  make $$bench"; done; fi

# Some benchmarks start the two programs themselves: all binaries are built.
$(BENCHES):
	@sh tests/deps.sh test
	$(CARGO) build --release --locked --workspace --bins
	target/release/$@

# The agent is measured as it is installed, beside Debian's own where they can
# be had.
bench-agent: small peers
.PHONY: small peers soak
small: ## the agent as it is installed, target/small/webhost-agent
	$(CARGO) build --profile small --locked -p webhost-agent
soak: small ## half an hour of containers that come and go: the agent's memory and descriptors stay (MINUTES)
	@sh tests/deps.sh demo
	$(CARGO) build --release --locked --workspace --bins
	target/release/soak
peers:
	@sh tests/deps.sh peers || echo "the peers are not measured"

check: $(DENY) ## format, lints, dependencies: what must hold before anything lands
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(DENY) --locked check bans licenses sources

fmt: ## format the code
	$(CARGO) fmt --all

# Compiled once, outside the workspace's lock, into target/tools. A cargo-deny
# of another version on the PATH could judge differently, so it isn't asked.
$(DENY):
	$(CARGO) install --locked cargo-deny --version $(DENY_VERSION) --root $(TOOLS)

install: ## install binaries, units and example configuration (PREFIX, SYSCONFDIR, DESTDIR); starts nothing
	@test -x target/small/webhost-agent -a -x target/release/webhost-coordinator || \
	    { echo "build first, as yourself: make small && cargo build --release --locked -p webhost-coordinator"; exit 1; }
	install -D -m 0755 target/small/webhost-agent $(DESTDIR)$(PREFIX)/bin/webhost-agent
	install -D -m 0755 target/release/webhost-coordinator $(DESTDIR)$(PREFIX)/bin/webhost-coordinator
	install -d $(DESTDIR)$(LIBDIR)/systemd/system
	for unit in webhost-agent webhost-coordinator webhost-docker-proxy; do \
	    sed 's|/usr/local/|$(PREFIX)/|' systemd/$$unit.service > $(DESTDIR)$(LIBDIR)/systemd/system/$$unit.service; \
	    chmod 0644 $(DESTDIR)$(LIBDIR)/systemd/system/$$unit.service; done
	sed 's|/usr/local/|$(PREFIX)/|' systemd/webhost-nginx-reload.service > $(DESTDIR)$(LIBDIR)/systemd/system/webhost-nginx-reload.service
	install -m 0644 systemd/webhost-nginx-reload.path $(DESTDIR)$(LIBDIR)/systemd/system/webhost-nginx-reload.path
	chmod 0644 $(DESTDIR)$(LIBDIR)/systemd/system/webhost-nginx-reload.service
	install -D -m 0644 systemd/sysusers.d/webhost.conf $(DESTDIR)$(LIBDIR)/sysusers.d/webhost.conf
	install -D -m 0644 systemd/tmpfiles.d/webhost.conf $(DESTDIR)$(LIBDIR)/tmpfiles.d/webhost.conf
	for file in agent.toml coordinator.toml agent.env coordinator.env; do \
	    install -D -m 0644 systemd/$$file $(DESTDIR)$(SYSCONFDIR)/webhost/$$file.example; done
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	target/small/webhost-agent man $(DESTDIR)$(PREFIX)/share/man/man1
	target/small/webhost-agent completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/webhost-agent
	install -D -m 0644 agent/src/collect/METRICS.md $(DESTDIR)$(PREFIX)/share/doc/webhost/METRICS.md
	install -D -m 0644 README.md $(DESTDIR)$(PREFIX)/share/doc/webhost/README.md
	install -D -m 0644 systemd/nginx.conf $(DESTDIR)$(PREFIX)/share/doc/webhost/nginx.conf
	install -d $(DESTDIR)$(PREFIX)/share/doc/webhost/drop-ins
	install -m 0644 systemd/drop-ins/*.conf $(DESTDIR)$(PREFIX)/share/doc/webhost/drop-ins/
	@echo "installed; README.md, \"Install for real\", says what comes next"

clean: ## remove everything that was built
	$(CARGO) clean
