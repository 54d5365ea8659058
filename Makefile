# make help lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help venv venv-dev venv-web venv-web-test serve webui test test-clients tools tools-quantize test-tools test-web \
	test-image test-deploy compat image chaos soak bench test-faults lint format lock clean

PYTHON ?=
IMAGE ?= llm-service
VLLM ?= 0.11.0.post2
COMPAT_PYTHON ?=
ACCELERATOR ?= auto

# Tests get a small environment of their own, so that no MODEL_ID or PORT of the caller's shell changes what they test.
# Kept is what names places, tools and the way to the network, and what CI systems and terminals set.
TEST_KEEPS := PATH HOME USER SHELL TERM LANG LC_ALL TMPDIR XDG_CACHE_HOME CI SCREENSHOTS NO_COLOR FORCE_COLOR SHARED_DIR PYTEST_ADDOPTS \
	http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR \
	LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES
TESTS := tests/unit tests/integration tests/e2e

define run_tests
	kept=(); for name in $(TEST_KEEPS); do if [ -n "$${!name+set}" ]; then kept+=("$$name=$${!name}"); fi; done; \
	exec env -i "$${kept[@]}" $(1)/bin/python -m pytest
endef

define prepare
	python=$$(scripts/find_python.sh "$(PYTHON)") && "$$python" scripts/environment.py --accelerator "$(ACCELERATOR)"
endef

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=…          the interpreter to make .venv with (CPython 3.11 or 3.12)"
	@echo "  ACCELERATOR=…     cpu or cuda instead of what is found"
	@echo "  MODEL_ID=… MODEL_DIR=…, and every other setting: from the environment, or from a file .env"

venv: ## make .venv and install the pinned packages (skipped when done)
	@$(prepare)

venv-dev:
	@$(prepare) --dev

venv-web: ## make .venv-web, the web page's environment (skipped when done)
	@$(prepare) --for web

venv-web-test:
	@$(prepare) --for web --dev

serve: venv ## fetch the model if needed and run the service in the foreground; Ctrl-C stops it
	@exec .venv/bin/python scripts/env_file.py .env scripts/serve.sh

webui: venv-web ## the web page alone, on port 7860 (WEBUI_PORT), for a service that runs
	@exec .venv-web/bin/python scripts/env_file.py .env .venv-web/bin/python -m webui

test: venv-dev ## run the unit, integration and end-to-end tests
	@$(call run_tests,.venv) $(TESTS)

test-faults: venv-dev ## harm the running service: killed and stopped processes, missing resources (some tests need root)
	@$(call run_tests,.venv) tests/faults

chaos: venv-dev ## random faults under load for CHAOS_MINUTES (5), CHAOS_SEED; ends with a table
	@.venv/bin/python -m tests.chaos chaos

soak: venv-dev tools ## ten thousand requests; memory, descriptors and threads must not grow; writes .soak/
	@status=0; .venv/bin/python -m tests.chaos soak .soak || status=$$?; \
	if [ -f .soak/soak.json ]; then .venv-tools/bin/python -m tests.chaos.plot .soak/soak.json .soak/soak.png; fi; exit $$status

bench: venv tools ## measure the CPU path beside vLLM itself (under ten minutes, on a quiet machine); writes benchmarks/results/
	@.venv/bin/python -m benchmarks cpu $(BENCH_ARGS)
	@.venv-tools/bin/python -m benchmarks.plot "$$(ls -t benchmarks/results/*-cpu.json | head -1)"

tools: ## make .venv-tools: what evaluates, tunes and uploads (skipped when done)
	@$(prepare) --for tools

tools-quantize: ## make .venv-quantize: what merges and quantizes (skipped when done)
	@$(prepare) --for quantize

test-tools: venv tools-quantize ## run the tests of the tools, on the real service and a real model
	@$(prepare) --for tools --dev
	@$(call run_tests,.venv-tools) tests/tools

test-clients: venv-dev ## drive the service with public clients, in an environment of their own (400 MB)
	@$(call run_tests,.venv) tests/clients

test-web: venv venv-web-test ## run the tests of the web page in a real Chromium (SCREENSHOTS=1 writes docs/images)
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		{ echo "make test-web needs Chromium: apt-get install chromium fonts-noto-cjk" >&2; exit 1; }
	@$(call run_tests,.venv-web) tests/webui

compat: venv-dev ## run the engines' and the Triton model's tests with another vLLM for CPUs: VLLM=0.11.0.post2
	@PYTHON="$(COMPAT_PYTHON)" exec scripts/compat.sh "$(VLLM)" $(COMPAT_TESTS)

test-image: venv-dev ## build the image and run it without a network (root, buildah, debootstrap, iproute2)
	@$(call run_tests,.venv) tests/image

test-deploy: venv-dev .deploy-tools/installed ## check deploy/ with its own tools and a running service (prometheus)
	@$(call run_tests,.venv) tests/deploy

.deploy-tools/installed: requirements/deploy.txt
	@rm -rf .deploy-tools
	@.venv/bin/python -m pip install -qq --no-deps --require-hashes --target .deploy-tools --requirement requirements/deploy.txt
	@touch $@

image: ## build the image with Docker; IMAGE=name, BUILD_ARGS="--build-arg …"
	docker build $(if $(MODELSCOPE_API_TOKEN),--secret id=MODELSCOPE_API_TOKEN) --tag "$(IMAGE)" $(BUILD_ARGS) .

lint: venv-dev ## check style (ruff) and types (mypy)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@mkdir -p .lint && ln -sfn ../model_repository/llm/1 .lint/llm_model
	@.venv/bin/mypy -p gateway -p runtime -p download -p scripts -p llm_model -p tools -p webui -p benchmarks -m download_model

format: venv-dev ## rewrite the sources in the project's style
	@.venv/bin/ruff check --fix --quiet . || true
	@.venv/bin/ruff format .

lock: venv-dev ## resolve the pinned lists in requirements/ anew (UPGRADE=1 takes the newest versions)
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

clean: ## remove the environments, caches and what the service assembled; models stay
	rm -rf .venv .venv-* .venv*.lock .triton .lint .deploy-tools .soak .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
