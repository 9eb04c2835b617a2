# Every target sets up .venv by itself; `make demo` installs the least.
PYTHON ?= python3
PIP = .venv/bin/pip --quiet --disable-pip-version-check

.PHONY: demo test lint bench clean

demo: .venv/.ready
	.venv/bin/laconic demo

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
	@echo "Setting up .venv (PyTorch is the large part) ..."
	$(PYTHON) -m venv .venv
	$(PIP) install -e '.[test]'
	@touch $@

.venv/.ready-dev: .venv/.ready
	$(PIP) install -e '.[dev]'
	@touch $@
