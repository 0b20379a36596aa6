# Two commands do all on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python

.PHONY: demo test test-slow soak lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   an embedded realm, a mount, and a tour through it"
	@echo "make test   lint and every test, ring by ring"
	@echo "make test-slow  the tests that take minutes: Python's own, on a mount"
	@echo "make soak   the promises, 1000 random runs with crashes (REALMFS_SEED=N repeats one)"
	@echo "make lint   formatting, types, who may know whom"
	@echo "make bench  measure against peers, as ratios"

$(VENV)/.ready: pyproject.toml scripts/setup
	PYTHON=$(PYTHON) scripts/setup $(VENV)
	touch $@

demo: $(VENV)/.ready
	$(RUN) -m realmfs demo --no-tui

test: lint
	$(RUN) scripts/rings.py

test-slow: $(VENV)/.ready
	REALMFS_SLOW=1 $(RUN) -m pytest -q -m slow tests

soak: $(VENV)/.ready
	PYTHONHASHSEED=0 REALMFS_SEED=$${REALMFS_SEED:-random} REALMFS_SLOW=1 REALMFS_SOAK=$${REALMFS_SOAK:-1000} $(RUN) -m pytest -q -s --timeout 3600 tests/promises

lint: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.ready
	$(RUN) -m bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis
