# Two commands do everything on a fresh machine: make run, make test.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes, whatever the machine: each test starts some of its own.
PYTEST := $(BIN)/pytest --numprocesses 2 --dist worksteal
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: run test test-pure check bench compare compare-packages attack fuzz clean system-packages

run: $(BIN)/gateway
	@echo 'Open http://127.0.0.1:8000/ (the same application answers FastCGI on 127.0.0.1:9000'
	@echo 'and SCGI on 127.0.0.1:4000). Stop with Ctrl-C.'
	@exec $(BIN)/gateway examples/hello.py --workers 2 --accesslog - \
		--bind http://127.0.0.1:8000 --bind fastcgi://127.0.0.1:9000 --bind scgi://127.0.0.1:4000

$(BIN)/gateway: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/gateway
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# Real front ends and a real FastCGI client, from the distribution.
system-packages:
	@if command -v apt-get >/dev/null; then \
		for program in nginx apache2 cgi-fcgi curl lighttpd haproxy spawn-fcgi openssl; do \
			PATH=$$PATH:/usr/sbin command -v $$program >/dev/null || missing=yes; \
		done; \
		for module in fcgid xsendfile; do \
			[ -e /usr/lib/apache2/modules/mod_$$module.so ] || missing=yes; \
		done; \
		if [ -n "$$missing" ]; then \
			$(SUDO) apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends \
				nginx apache2 libapache2-mod-fcgid libapache2-mod-xsendfile libfcgi-bin curl \
				lighttpd haproxy spawn-fcgi openssl \
				$$(apt-cache show caddy >/dev/null 2>&1 && echo caddy) >/dev/null; \
		fi; \
	else \
		echo 'no apt-get here: tests of servers that are not installed are skipped'; \
	fi

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Everything as it is installed; what is compiled then once more as Python.  make test-pure
# runs everything as Python.
test: system-packages check
	$(PYTEST)
	GATEWAY_PURE=1 $(PYTEST) --quiet tests/protocols tests/gateway tests/fuzz/test_corpus.py

test-pure: system-packages check
	GATEWAY_PURE=1 $(PYTEST)

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

# What the comparison is made with, from the distribution; without it a peer is left out, and named.
compare-packages:
	@if command -v apt-get >/dev/null; then \
		for program in wrk nginx apache2 gcc; do \
			PATH=$$PATH:/usr/sbin command -v $$program >/dev/null || missing=yes; \
		done; \
		[ -e /usr/include/ev.h ] || missing=yes; \
		if [ -n "$$missing" ]; then \
			$(SUDO) apt-get update -qq && \
			DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends \
				wrk nginx apache2 gcc libc6-dev libev-dev python3-dev >/dev/null; \
		fi; \
	fi

# make compare ARGS='--only hello,upload --peers gateway,granian --rounds 5'
compare: compare-packages
	$(PYTHON) -m benchmarks.compare $(or $(ARGS),--plot benchmarks/report.png)

# make attack ARGS='--seconds 10 --loris 500'
attack: $(BIN)/gateway
	$(BIN)/python -m benchmarks.attack $(ARGS)

$(VENV)/.fuzz: pyproject.toml | $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@touch $@

# FUZZ_SECONDS=60 for each codec and for the live servers; findings go to fuzz-findings.
# The codecs as Python, for what is compiled shows the fuzzer no edges; the server as installed.
fuzz: $(VENV)/.fuzz
	GATEWAY_PURE=1 $(BIN)/python tests/fuzz/fuzz_codecs.py
	$(BIN)/python tests/fuzz/fuzz_live.py

clean:
	rm -rf $(VENV) build *.egg-info
