PYTHON ?= python3
BIN := .venv/bin
GPU_TESTS := tests/model/test_cuda.py tests/model/inference/test_folded_module.py \
	tests/training/test_cuda_training.py tests/end_to_end/test_cuda_runs.py
LEGACY ?= pretrain or ks or resumes and (asr or sid or er or pr) or modeling or native
MINUTES ?= 10
SEED ?= 0
ESPNET ?= espnet or ks or resumes and sid or interface or name or doctor

.PHONY: demo test test-fast test-gpu bench-gpu test-legacy test-espnet test-browser torture release-check lint docs pages clean

demo: .venv/installed
	$(BIN)/s3prl-dphubert demo --out demo-output

# Each of two workers takes whole files, whose tests share what is costly to make.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term --cov-fail-under=90

test-fast: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not s3prl and not torchrun'

# On a GPU, with the Python and torch that are there (PYTHON=python3): nothing is installed or downloaded.
test-gpu:
	CUBLAS_WORKSPACE_CONFIG=:4096:8 $(PYTHON) -m pytest -m cuda -n 4 --dist loadfile $(GPU_TESTS)

bench-gpu:
	$(PYTHON) -m s3prl_dphubert.cli bench --device cuda --out build/gpu $(BENCH)

# s3prl's own time: before huggingface_hub 1, transformers 5 and torchaudio without backends, on the oldest torch
# that this package takes; Auto classes of the last transformers 4 open models there. The sox
# switch makes torchaudio 2.8 what it is without libsox, whether this machine has it or not.
test-legacy: .venv-legacy/installed
	TORCHAUDIO_USE_SOX=0 .venv-legacy/bin/python -m pytest -m '' -k '$(LEGACY)' \
		tests/end_to_end/test_downstreams.py tests/end_to_end/test_pretrain.py tests/pretrain \
		tests/modeling tests/checkpoints/test_native_transformers.py

# ESPnet's fork of s3prl, ESPnet's frontend and training program, lhotse's extractor.
test-espnet: .venv-espnet/installed
	.venv-espnet/bin/python -m pytest -m '' -k '$(ESPNET)' tests/end_to_end/test_espnet.py \
		tests/end_to_end/test_downstreams.py tests/upstream/test_registry.py

# The page of `report` in Chromium, without a display; its wheels have 250 MB.
test-browser: .venv/installed .venv-browser/installed
	$(BIN)/python -m pytest tests/run_report/test_page_in_browser.py

# Kills, damage, full disks: docs/explanation/reliability.md.
torture: .venv/installed
	$(BIN)/python -m tests.torture --minutes $(MINUTES) --seed $(SEED)

# Build, twine, installation in empty environments; PYTHONS="--python PATH --python PATH" names interpreters.
release-check: .venv/installed
	$(BIN)/python .ci/release.py check $(PYTHONS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky -q docs build/docs
	@echo build/docs/index.html

# Parts of pages that are made from code and results; a test compares them with what is committed.
pages: .venv/installed
	$(BIN)/python -m docs.generate
	$(BIN)/python -m s3prl_dphubert.superb.report.recipe_page downstream_recipes/*
	$(BIN)/python -m s3prl_dphubert.free_superb.results docs/results/free-superb
	$(BIN)/python -m s3prl_dphubert.hubert_mini.curves docs/results/hubert-mini
	$(BIN)/python -m s3prl_dphubert.bench.budgets docs/results/budgets.md

.venv/installed: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	$(BIN)/python -m pip install --quiet -e '.[superb_sg,superb_vc]' || \
		echo 'pesq and pyworld need a C compiler: SE, SS and VC are not tested here'
	touch $@

.venv-legacy/installed: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv .venv-legacy
	.venv-legacy/bin/python -m pip install --quiet -e '.[s3prl]' pytest \
		torch==2.8.0 torchaudio==2.8.0 'huggingface_hub<1' 'transformers<5'
	touch $@

# ESPnet asks for pyworld, which is compiled; what its speech recognition imports has wheels.
.venv-espnet/installed: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv .venv-espnet
	.venv-espnet/bin/python -m pip install --quiet -e '.[espnet-s3prl]' pytest asteroid-filterbanks \
		configargparse einops fast-bss-eval g2p_en humanfriendly hydra-core jamo jaconv kaldiio lhotse \
		lightning nltk opt-einsum 'pypinyin<=0.44' pytorch-wpe sentencepiece torch_complex typeguard unidecode
	.venv-espnet/bin/python -m pip install --quiet --no-deps ci_sdr espnet==202511 espnet_tts_frontend
	touch $@

.venv-browser/installed:
	$(PYTHON) -m venv .venv-browser
	.venv-browser/bin/python -m pip install --quiet 'PySide6-WebEngine>=6.12'
	touch $@

clean:
	rm -rf .venv .venv-legacy .venv-espnet .venv-browser build demo-output *.egg-info
