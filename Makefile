# Every target sets up .venv by itself; `make demo` installs the least. Python's files are not compiled ahead
# (--no-compile): those that are used are compiled when they are first imported, which takes less time.
PYTHON ?= python3
PIP = .venv/bin/pip --quiet --disable-pip-version-check
NATIVE = src/laconic/native

.PHONY: demo test lint bench docs serve wheels wasm example clean

demo: .venv/.native
	@.venv/bin/laconic demo

test: .venv/.ready-dev .venv/.native
	.venv/bin/python -m pytest -n 2

lint: .venv/.ready-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/clang-format --dry-run -Werror $(NATIVE)/*.[ch] src/laconic/export/c/*.c tests/native/*.c

# The site, in dist/docs.
docs: .venv/.ready-dev
	.venv/bin/python -m sphinx --quiet -W --keep-going -b html docs dist/docs

# A page to drop photos on.
serve: .venv/.ready-dev .venv/.native
	.venv/bin/laconic serve

bench: .venv/.ready-dev .venv/.native
	.venv/bin/python benchmarks/metrics.py --csv results/metrics_speed.csv
	.venv/bin/python benchmarks/train_step.py --csv results/train_step.csv --threads 1
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 .venv/bin/python benchmarks/engine.py --out results --check

# Wheels for Linux, macOS and Windows in dist/, each with the WebAssembly module, with Zig's compiler for all of them.
wheels: .venv-wheels/.ready
	.venv-wheels/bin/python packaging/wheels.py
	sh packaging/check_wheel.sh dist $(PYTHON)

# The WebAssembly module alone, for `laconic export --to web`.
wasm: $(NATIVE)/laconic.wasm

$(NATIVE)/laconic.wasm: .venv-wheels/.ready $(wildcard $(NATIVE)/*.[ch]) $(NATIVE)/building.py
	.venv-wheels/bin/python packaging/wheels.py wasm

# An application compiles two files of laconic and its own.
example: dist/caption

dist/caption: src/laconic/export/c/caption.c $(wildcard $(NATIVE)/*.[ch])
	@mkdir -p dist
	$(CC) -O3 -march=native -ffp-contract=fast -I$(NATIVE) $(NATIVE)/laconic.c $(NATIVE)/engine.c src/laconic/export/c/caption.c -o $@

clean:
	rm -rf .venv .venv-wheels dist runs cache $(NATIVE)/liblaconic.* $(NATIVE)/laconic.wasm

.venv/.ready: pyproject.toml hatch_build.py
	@echo "Setting up .venv: about a minute, most of it for PyTorch ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) install --no-compile -e '.[demo]'
	@touch $@

.venv/.ready-dev: .venv/.ready
	$(PIP) install -e '.[dev]'
	@touch $@

# The library is made by the installation, and again when its sources change.
.venv/.native: .venv/.ready $(wildcard $(NATIVE)/*.[ch]) $(NATIVE)/building.py
	@.venv/bin/python $(NATIVE)/building.py > /dev/null
	@touch $@

.venv-wheels/.ready: packaging/requirements.txt
	@$(PYTHON) -m venv .venv-wheels
	@.venv-wheels/bin/pip --quiet --disable-pip-version-check install --no-compile -r packaging/requirements.txt
	@touch $@
