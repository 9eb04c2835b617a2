# Every target sets up .venv by itself; `make demo` installs the least. Python's files are not compiled ahead
# (--no-compile): those that are used are compiled when they are first imported, which takes less time.
PYTHON ?= python3
PIP = .venv/bin/pip --quiet --disable-pip-version-check

.PHONY: demo test lint bench clean

demo: .venv/.ready
	@.venv/bin/laconic demo

test: .venv/.ready-dev
	.venv/bin/python -m pytest -n 2

lint: .venv/.ready-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .venv/.ready-dev
	.venv/bin/python benchmarks/metrics.py --csv results/metrics_speed.csv
	.venv/bin/python benchmarks/train_step.py --csv results/train_step.csv --threads 1

clean:
	rm -rf .venv runs cache

.venv/.ready: pyproject.toml
	@echo "Setting up .venv: about a minute, most of it for PyTorch ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) install --no-compile -e '.[demo]'
	@touch $@

.venv/.ready-dev: .venv/.ready
	$(PIP) install -e '.[dev]'
	@touch $@
