PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint readme clean

demo: .venv/installed
	$(BIN)/s3prl-dphubert demo --out demo-output

test: .venv/installed
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

readme: .venv/installed
	$(BIN)/python -m s3prl_dphubert.cli.readme README.md

.venv/installed: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build demo-output *.egg-info
