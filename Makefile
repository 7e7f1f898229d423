# The commands people and CI use. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
NODES ?= 1
UV := $(BIN)/uv
COMPILE := $(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: install
install: $(VENV)/.installed ## Install system packages and the locked Python environment

$(VENV)/.installed: requirements.lock pyproject.toml dev/packages.txt dev/install.sh
	bash dev/install.sh
	touch $@

.PHONY: lock
lock: ## Resolve the Python dependencies again
	$(COMPILE) pyproject.toml --all-extras --group check --group test --group docs --group build --group images -o requirements.lock
	$(COMPILE) pyproject.toml --extra operator -c requirements.lock -o containers/operator.lock
	$(COMPILE) pyproject.toml --extra node -c requirements.lock -o containers/node.lock
	$(COMPILE) --group images -c requirements.lock -o containers/build.lock

# What is in the images.
LICENCES = $(BIN)/pip-licenses --packages $(shell sed -n 's/^\([A-Za-z0-9._-]*\)==.*/\1/p' containers/operator.lock containers/node.lock | sort -u)

.PHONY: generate
generate: install ## Write the generated files (CRDs, references, dashboards, licences) again
	$(BIN)/virtfleet-crds write
	$(BIN)/python dev/metrics_reference.py write
	$(BIN)/python -m virtfleet_dev.dashboards write
	$(LICENCES) --output-file docs/reference/licences.md

.PHONY: audit
audit: install ## Look every locked package up in PyPI's advisories; needs the network
	$(BIN)/uv tool run pip-audit@2.10.1 --strict --disable-pip --require-hashes -r requirements.lock

.PHONY: lint types layers generated docs unit check
lint: install ## ruff, every rule; hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile dev/src/virtfleet_dev/base_image/Dockerfile
types: install ## mypy --strict
	$(BIN)/mypy
layers: install ## import-linter
	$(BIN)/lint-imports
generated: install ## Generated files are up to date
	$(BIN)/virtfleet-crds check
	$(LICENCES) | diff -q - docs/reference/licences.md || { echo "docs/reference/licences.md is old: run make generate"; exit 1; }
	$(BIN)/python dev/metrics_reference.py check
	$(BIN)/python -m virtfleet_dev.dashboards check
docs: install ## The site builds, and every link in it leads somewhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q
unit: install ## Unit, property and golden tests
	$(BIN)/pytest -q tests/unit tests/property tests/golden
check: lint types layers generated docs unit ## Everything that needs no cluster, under a minute

# Tests on real parts, once more if they fail. Most wait half of their time, so they are two runs at once; what compares
# rates or times comes after them, alone.
REAL = $(BIN)/pytest --reruns 1
NODE_TESTS = tests/hardware tests/integration tests/libvirt tests/ovn tests/rules
NO_PARTS = tests/unit tests/property tests/golden

.PHONY: test test-clusters test-nodes
test: check ## Everything CI runs: `make check`, then every test on real parts
	$(BIN)/virtfleet-dev caches
	$(MAKE) --keep-going --jobs=2 test-clusters test-nodes
	$(REAL) tests -m alone $(NO_PARTS:%=--ignore=%)
test-clusters:
	$(REAL) tests -m "not alone" $(NO_PARTS:%=--ignore=%) $(NODE_TESTS:%=--ignore=%)
test-nodes: # what it says comes at its end, since the other one is writing
	log=$$(mktemp); $(REAL) $(NODE_TESTS) -m "not alone" >$$log 2>&1; status=$$?; cat $$log; rm $$log; exit $$status

.PHONY: quickstart up down bench images
quickstart: install ## From a fresh machine to a running VM, step by step
	$(BIN)/virtfleet-dev quickstart
up: install ## A one-machine cluster with NODES nodes; kubeconfig in .dev/kubeconfig
	$(BIN)/virtfleet-dev up --nodes $(NODES)
down: ## Stop it and leave nothing behind
	$(BIN)/virtfleet-dev down
.PHONY: kubelet-up kubelet-down
kubelet-up: install ## A cluster with a kubelet and the chart; kubeconfig in .dev-kubelet/kubeconfig
	$(BIN)/virtfleet-dev kubelet-up
kubelet-down: ## Stop it and leave nothing behind
	$(BIN)/virtfleet-dev kubelet-down
images: install ## Build the container images, archives of them in .dev/images
	$(BIN)/virtfleet-dev images
.PHONY: kind-up kind-down
kind-up: ## A kind cluster with virtfleet, for a machine with Docker and libvirtd
	bash dev/kind/up.sh
kind-down: ## Remove it; machines that run go on in libvirtd
	kind delete cluster --name virtfleet
bench: install ## Measure speed and memory, see docs/performance.md
	$(BIN)/python -m benchmarks
