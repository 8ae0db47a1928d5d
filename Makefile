# make demo / make test do everything from a fresh clone; see docs/install.md.
#   STACK=stock|onedl   the MM packages: the stock ones (default) or their maintained forks
#   TORCH="torch==X"    another torch than the tested one; it stays until another is named
#   PYTHON=python3.11   the interpreter the environment is made of
#   MMCV_WHEELS=PLACE   a folder or page of wheels: mmcv is taken from there and not compiled
#   JOBS=2              processes that share the tests, of one thread each
STACK ?= stock
TORCH ?=
PYTHON ?= python3
MMCV_WHEELS ?=
JOBS ?= 2

VENV := $(if $(filter onedl,$(STACK)),.venv-onedl,.venv)
RUN := PYTHONPATH="$(CURDIR)" $(VENV)/bin/python
PYTEST := $(RUN) -m pytest
# Two processes of one thread are faster than one of two: most tests are too small for threads.
SHARED := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PYTEST) -n $(JOBS) --dist worksteal

.PHONY: demo test quick nightly bench bench-plots lint docs doctor install clean
.DEFAULT_GOAL := demo

demo: install
	$(RUN) tools/demo.py

test: install
	$(SHARED) $(ARGS)

quick: install
	$(SHARED) @tests/quick.txt $(ARGS)

# First as users run it, without the checks of sparse rows; then the slow tests, all cores to each.
nightly: export MMSPARSE_NIGHTLY = 1
nightly: install
	MMSPARSE_DEBUG=0 $(SHARED) $(ARGS)
	$(PYTEST) -m slow $(ARGS)

bench: install
	$(RUN) tools/bench.py $(ARGS)

bench-plots: install
	$(RUN) tools/bench_plots.py $(ARGS)

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/codespell
	$(VENV)/bin/mypy
	$(RUN) .ci/lint_docs.py
	$(VENV)/bin/lint-imports --config setup.cfg --no-cache
	$(VENV)/bin/hadolint Dockerfile

docs: install
	NO_MKDOCS_2_WARNING=1 PYTHONPATH="$(CURDIR)" $(VENV)/bin/mkdocs build --strict $(ARGS)

doctor: install
	$(RUN) -m mmsparse.doctor

install:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "[mmsparse] no $(PYTHON): sudo apt-get install python3 python3-venv python3-dev" >&2; exit 1; }
	@$(PYTHON) requirements/install.py --stack "$(STACK)" --torch "$(TORCH)" --python "$(PYTHON)" \
	  --mmcv-wheels "$(MMCV_WHEELS)"

clean:
	rm -rf $(VENV) work_dirs build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
