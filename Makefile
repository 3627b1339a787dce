# Everything a person or CI runs. `make up` and `make test` do their whole set-up on a machine that has
# Python 3.11+, make and a network for packages; nothing here needs root.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: help up test check bench s3 lock clean
help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# uv is installed into the virtual environment itself, so that nothing outside this folder changes.
$(BIN)/uv:
	@$(PYTHON) tools/venv.py $(VENV)

# A network with an authority of its own has it among the system's certificates; uv would look at its own alone.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
endif

INSTALL := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet
# What runs, and beside it what tests and checks: who only wants it up need not fetch the rest.
$(BIN)/.ready: $(BIN)/uv requirements.lock pyproject.toml
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --editable .
	@touch $@
$(BIN)/.dev: $(BIN)/.ready requirements-dev.lock
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

up: $(BIN)/.ready ## Start the whole platform on this machine (ARGS='--data DIR --demo')
	@$(BIN)/caudal up $(ARGS)

# As many processes as there are processors, up to four; a part of the tests runs in one.
JOBS ?= $(if $(ARGS),0,auto)
test: $(BIN)/.dev ## Run every test this machine can run (ARGS='-k endpoint')
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

check: $(BIN)/.dev ## Lint, format, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(BIN)/.dev ## Measure, print a table, write bench/results
	@$(BIN)/python -m bench $(ARGS)

# Versity's S3 gateway, from the Go module proxy: the object store's suite runs on it too.
s3: .cache/s3/versitygw ## Make the S3 server that tests run on (needs Go 1.21 or later)
.cache/s3/versitygw:
	@GOBIN=$(CURDIR)/.cache/s3 go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-annotate
lock: $(BIN)/uv ## Take current versions of everything
	@$(COMPILE) pyproject.toml -o requirements.lock
	@$(COMPILE) pyproject.toml --extra otel -c requirements.lock -o requirements-otel.lock
	@$(COMPILE) pyproject.toml --group dev -c requirements-otel.lock -o requirements-dev.lock

clean: ## Remove what was built; data stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
