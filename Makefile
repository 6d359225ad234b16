# Everything a contributor and a CI run, from a fresh machine with Rust (stable), Python >= 3.11 and make.
# What has been made is not made again: stamps lie in .venv, all else in target.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.SUFFIXES:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
WHEELS := target/wheels-fast
# With the command, without Python: what links no interpreter can be tested by itself.
CARGO_TEST := cargo test --workspace --features graft/cli --locked
# Where rustup puts it, for a shell that was opened before.
export PATH := $(PATH):$(HOME)/.cargo/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Directories stand for the files that leave them.
WHEEL_SOURCES := Cargo.toml Cargo.lock pyproject.toml build.rs \
	$(shell find src proto python/graft \( -name __pycache__ -o -name '*.so' \) -prune -o -print 2>/dev/null)

.PHONY: help demo test test-rust test-python test-pythons simulate matrix exhaustive sensitivity tla mutants fuzz corpus chaos chaos-tools \
	increments powercuts sabotage bench bench-docs scale soak micro instructions build wheel scenarios docs notebooks test-notebook pictures \
	check check-rust check-python check-architecture check-docs \
	check-dependencies fix clean rust

help: ## Say what there is to make.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1#\2/p' Makefile | awk -F'#' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(VENV)/.wheel ## Run a cluster of three processes, kill its leader, lose nothing.
	$(PY) examples/demo.py

test: test-rust instructions test-pythons test-python ## Pass every test, in Rust and on every CPython of this machine; hold instructions per command.

test-rust: | rust
	$(CARGO_TEST)

test-python: $(VENV)/.wheel
	$(PY) -m pytest

test-pythons: $(VENV)/.wheel
	tools/smoke.sh $(WHEELS)

# Of one seed, with its story: make simulate SEED=7. Assertions and overflow checks are on.
SEEDS ?= 2000
export SEEDS SEED FIRST LYING HORIZON
simulate: | rust ## Try SEEDS=2000 simulated worlds on all cores, every check after every step.
	cargo run --quiet --profile simulate --locked -p graft-simulation --bin simulate

# EVERY=8 tries one case of eight.
export EVERY
matrix: | rust ## Damage a small store in every way, cut its power everywhere: two million cases.
	cargo run --quiet --profile fast --locked -p graft-simulation --bin matrix

# One of them: make exhaustive MODEL=joint. Some 3 GB of memory for 4 million states.
STATES ?= 4000000
export STATES MODEL THREADS
exhaustive: | rust ## Look at all states of small clusters, STATES=4000000 of each model, breadth first.
	cargo run --quiet --profile fast --locked -p graft-exhaustive

sensitivity: $(VENV)/.tools | rust ## Put bugs into a copy of the core, see the search through all states come by each.
	$(PY) tools/sensitivity.py $(SENSITIVITY)

# A few of it: make tla TLA="--only traces" TRACES=200 LINES=1000. The checker takes some minutes to build, once.
TRACES ?= 24
LINES ?= 500
export TRACES LINES FIRST
tla: target/tools/bin/tla $(VENV)/.tools | rust ## Check spec/Graft.tla: small models, what is wrong on purpose, TRACES=24 of the simulator.
	rm -rf target/traces
	cargo run --quiet --profile fast --locked -p graft-simulation --bin traces -- target/traces
	$(PY) tools/tla.py target/tools/bin/tla $(TLA)

target/tools/bin/tla: | rust
	CARGO_TARGET_DIR=target/tools/build cargo install --root target/tools --locked --version 0.24.11 tla-checker

mutants: $(VENV)/.tools | rust ## Put small bugs into a copy of the tree, see simulated worlds or the matrix find each; write docs/mutants.md.
	$(PY) tools/mutants.py --report docs/mutants.md $(MUTANTS)

# Each target for so long: make fuzz SECONDS=600 TARGETS="log peer". What it finds that is new stays in target/fuzz/corpus, and
# an input that breaks something in target/fuzz/artifacts.
FUZZ := RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(CURDIR)/target/fuzz PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo fuzz
TARGETS ?= $(notdir $(wildcard fuzz/corpus/*))
fuzz: SECONDS ?= 60
fuzz: target/tools/bin/cargo-fuzz | rust ## Let a fuzzer look for bytes that break a parser, SECONDS=60 for each.
	$(FUZZ) build --fuzz-dir fuzz --sanitizer none
	@for target in $(TARGETS); do \
		printf '%-14s%s s  ' $$target $(SECONDS); log=target/fuzz/$$target.log; \
		mkdir -p target/fuzz/corpus/$$target target/fuzz/artifacts/$$target && \
		$(FUZZ) run --fuzz-dir fuzz --sanitizer none $$target target/fuzz/corpus/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(SECONDS) -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
			-artifact_prefix=target/fuzz/artifacts/$$target/ > $$log 2>&1 || { echo; tail -40 $$log; exit 1; }; \
		grep cov: $$log | tail -1; \
	done

# Stable Rust builds what it runs, by the one variable above.
target/tools/bin/cargo-fuzz: | rust
	CARGO_TARGET_DIR=target/tools/build cargo install --root target/tools --locked --version 0.13.1 cargo-fuzz

corpus: | rust ## Write the examples in fuzz/corpus anew, from the code.
	UPDATE_CORPUS=1 cargo test --package graft-fuzzing --locked the_corpus_begins_with_real_examples

# More arguments, such as --seed 7 or --network namespaces: make chaos CHAOS="--seed 7".
MINUTES ?= 10
chaos: $(VENV)/.wheel chaos-tools ## Break five processes, disks and clocks for MINUTES=10, check what clients saw.
	PYTHONPATH=tests/python $(PY) -m chaos faults --members 5 --minutes $(MINUTES) $(CHAOS)

increments: $(VENV)/.wheel ## Kill 20 leaders under 8000 increments, miss and double none.
	PYTHONPATH=tests/python $(PY) -m chaos increments --clients 8 --number 1000 --kills 20 $(CHAOS)

CUTS ?= 1000
powercuts: $(VENV)/.wheel chaos-tools ## Cut the power of three machines at once CUTS=1000 times, lose nothing.
	PYTHONPATH=tests/python $(PY) -m chaos powercuts --cuts $(CUTS) $(CHAOS)

# Where one is missing, its faults are left out, and the run says so.
chaos-tools:
	@missing=; command -v strace >/dev/null || missing="$$missing strace"; \
	command -v mkfs.ext4 >/dev/null || missing="$$missing e2fsprogs"; \
	ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$$missing libfaketime"; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$missing"; \
		{ apt-get install -y $$missing || { apt-get update && apt-get install -y $$missing; }; } >/dev/null 2>&1 \
			|| echo "that failed: what needs them is left out" >&2; \
	fi

sabotage: $(VENV)/.wheel ## Break the engine in two ways, see the chaos tests find it out.
	$(PY) tools/sabotage.py $(SABOTAGE)

# What is measured beside Graft has an environment of its own.
BENCH_VENV := .venv-bench
BENCH_PY := $(BENCH_VENV)/bin/python
BENCH_PARTS = $(if $(filter command line environment,$(origin PARTS)),--parts $(PARTS))
# Some of it: make bench PARTS="depths reads mixed tls members sizes python".
bench: $(BENCH_VENV)/.tools | rust ## Measure beside limits and peers; QUICK=1 for one short round.
	@command -v etcd >/dev/null || { echo "etcd is missing, and is installed as Debian's etcd-server"; \
		{ apt-get install -y etcd-server || { apt-get update && apt-get install -y etcd-server; }; } >/dev/null 2>&1 \
		|| echo "that failed: it is left out" >&2; }
	$(BENCH_PY) benches/bench.py --profile $(if $(QUICK),quick --quick,release) $(BENCH_PARTS) \
		--json target/bench.json --plot target/bench.png

bench-docs: $(BENCH_VENV)/.tools ## Write the tables of the last `make bench` into docs/performance.md.
	$(BENCH_PY) benches/bench.py --table target/bench.json

$(BENCH_VENV)/.tools: requirements-bench.txt
	@test -x $(BENCH_PY) || { python="$(PYTHON)"; python=$${python:-$$(tools/pythons.sh newest)} && \
		echo "$$python -m venv $(BENCH_VENV)" && "$$python" -m venv --clear $(BENCH_VENV); }
	$(BENCH_PY) -m pip install --quiet --requirement requirements-bench.txt
	@touch $@

# The wheel as it ships, beside the one of the tests; QUICK=1 takes that.
SHIPPED := target/shipped
LIMITS := PYTHONPATH=$(if $(QUICK),,$(SHIPPED)/site:)tests/python:benches $(PY)
# Some of it: make scale PARTS="failover locks". With a log of N=10000000 entries it takes 10 GB of memory and 5 GB of disk.
PARTS ?= writing recovering failover idling locks install
scale: $(if $(QUICK),$(VENV)/.wheel,$(SHIPPED)/.wheel) ## Large logs, recovery, failover, idle nodes, beside targets; QUICK=1 for less.
	$(LIMITS) -m scale --parts $(PARTS) $(if $(QUICK),--quick) $(if $(N),--entries $(N)) --json target/scale.json \
		--wheel $$(ls $(if $(QUICK),$(WHEELS),$(SHIPPED))/*.whl) $(SCALE)

# Shorter: make soak MINUTES=20. With a leak that it has to find: make soak MINUTES=6 LEAK=machine.
soak: HOURS ?= 1
soak: $(if $(QUICK),$(VENV)/.wheel,$(SHIPPED)/.wheel) ## Load three members for HOURS=1 under faults, see that nothing grows or is lost.
	$(LIMITS) -m soak $(if $(MINUTES),--minutes $(MINUTES),--hours $(HOURS)) $(if $(LEAK),--leak $(LEAK)) $(SOAK)

$(SHIPPED)/.wheel: $(WHEEL_SOURCES) $(VENV)/.tools | rust
	rm -rf $(SHIPPED)
	$(VENV)/bin/maturin build --release --locked --auditwheel skip --interpreter $(PY) --out $(SHIPPED)
	$(PY) -m pip install --quiet --no-deps --target $(SHIPPED)/site $(SHIPPED)/*.whl
	@touch $@

# Beside an earlier time: make micro SAVE=before, change something, make micro BASELINE=before. FILTER=core runs what has it in its name.
micro: | rust ## Time a command in core, services and log alone; SAVE=name keeps the times, BASELINE=name compares.
	cargo bench --locked -p graft-micro --bench micro -- $(if $(SAVE),--save-baseline $(SAVE)) $(if $(BASELINE),--baseline $(BASELINE)) $(FILTER)

# CASES="wal way" counts those that begin so.
export CASES
instructions: | rust ## Count instructions and allocations per command in core, services and log; UPDATE=1 expects them from now on.
	@command -v valgrind >/dev/null || { echo "valgrind is missing, and is installed as Debian has it"; \
		{ apt-get install -y valgrind || { apt-get update && apt-get install -y valgrind; }; } >/dev/null 2>&1 \
		|| echo "that failed" >&2; }
	UPDATE=$(UPDATE) cargo run --quiet --profile simulate --locked -p graft-micro --bin instructions

build: $(VENV)/.tools | rust ## Build into .venv as the Python files lie here: edit them and go on.
	rm -f $(VENV)/.wheel
	$(VENV)/bin/maturin develop --profile fast --locked

wheel: $(VENV)/.tools | rust ## Build the wheel to ship, optimised, into dist.
	$(VENV)/bin/maturin build --release --locked --out dist

scenarios: | rust ## Write the golden transcripts anew; read their diff before you commit it.
	UPDATE_SCENARIOS=1 cargo test -p graft-domain --locked scenarios

docs: $(VENV)/.tools | rust ## Draw the picture in docs/ARCHITECTURE.md, write docs/cli.md from the code, and build the reference.
	$(PY) tools/dependencies.py
	UPDATE_DOCS=1 $(CARGO_TEST) --package graft --lib manual
	cargo doc --workspace --no-deps --locked

check: check-rust check-python check-architecture check-docs check-dependencies ## Hold formats, lints, types, layers. Never writes.

check-rust: $(VENV)/.tools | rust
	cargo fmt --all --check
	PYO3_PYTHON=$(CURDIR)/$(PY) cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

check-python: $(VENV)/.wheel
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/basedpyright
	$(PY) -m mypy.stubtest graft._graft --mypy-config-file pyproject.toml

check-architecture: | rust
	$(CARGO_TEST) --test it architecture

check-docs: $(VENV)/.tools | rust
	$(PY) tools/dependencies.py --check
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

check-dependencies: $(VENV)/.tools | rust
	$(PY) tools/licences.py
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; fi

fix: $(VENV)/.tools | rust ## Write what check asks for, where a machine can.
	PYO3_PYTHON=$(CURDIR)/$(PY) cargo clippy --workspace --all-targets --all-features --fix --allow-dirty --allow-staged
	cargo fmt --all
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format
	$(PY) tools/dependencies.py

# The notebooks need Jupyter, which nothing else does: it has an environment of its own.
NOTEBOOK := .venv-notebook
NOTEBOOK_PY := $(NOTEBOOK)/bin/python
# The kernel that many still have, which takes messages on other threads.
OLD_KERNEL := target/ipykernel-6

notebooks: $(NOTEBOOK)/.wheel ## Run every notebook in examples from top to bottom, without a browser.
	$(NOTEBOOK_PY) tools/notebooks.py $(NOTEBOOKS)

test-notebook: $(NOTEBOOK)/.wheel $(OLD_KERNEL)/.tools ## Press the buttons of the live view in a real browser, and cells in a real kernel.
	$(NOTEBOOK_PY) -m pytest --rootdir tests/notebook -c tests/notebook/pytest.ini tests/notebook
	PYTHONPATH=$(OLD_KERNEL) $(NOTEBOOK_PY) -m pytest --rootdir tests/notebook -c tests/notebook/pytest.ini \
		tests/notebook/test_kernel.py

pictures: $(NOTEBOOK)/.wheel ## Take the pictures in docs/pictures anew, light and dark.
	PYTHONPATH=tests/notebook $(NOTEBOOK_PY) tools/pictures.py docs/pictures

$(NOTEBOOK)/.tools: requirements-notebook.txt
	@test -x $(NOTEBOOK_PY) || { python="$(PYTHON)"; python=$${python:-$$(tools/pythons.sh newest)} && \
		echo "$$python -m venv $(NOTEBOOK)" && "$$python" -m venv --clear $(NOTEBOOK); }
	$(NOTEBOOK_PY) -m pip install --quiet --requirement requirements-notebook.txt
	@touch $@

$(OLD_KERNEL)/.tools: $(NOTEBOOK)/.tools
	$(NOTEBOOK_PY) -m pip install --quiet --upgrade --no-deps --target $(OLD_KERNEL) ipykernel==6.30.1
	@touch $@

$(NOTEBOOK)/.wheel: $(VENV)/.wheel $(NOTEBOOK)/.tools
	$(NOTEBOOK_PY) -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	@touch $@

clean: ## Remove all that was made.
	rm -rf target dist $(VENV) .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find python examples tests tools -name __pycache__ -prune -exec rm -rf {} +
	rm -f python/graft/*.so

rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: see https://rustup.rs" >&2; exit 1; }
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || \
		{ echo "rustfmt or clippy is missing: rustup component add rustfmt clippy" >&2; exit 1; }

# A Python that has gone, or been replaced, leaves a dangling link: --clear makes the environment anew.
$(VENV)/.tools: requirements-dev.txt
	@test -x $(PY) || { python="$(PYTHON)"; python=$${python:-$$(tools/pythons.sh newest)} && \
		echo "$$python -m venv $(VENV)" && "$$python" -m venv --clear $(VENV); }
	$(PY) -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

$(VENV)/.wheel: $(WHEEL_SOURCES) $(VENV)/.tools | rust
	rm -rf $(WHEELS)
	$(VENV)/bin/maturin build --profile fast --locked --auditwheel skip --interpreter $(PY) --out $(WHEELS)
	$(PY) -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	@touch $@
