# The course's commands; `make help` lists them. GNU make 3.81 or newer, a POSIX shell and Python 3.11 or newer.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# What a caller may set.
PYTHON ?=
TORCH_INDEX ?= auto
ARGS ?=
NB ?=
ID ?=

VENV := .venv
PY := $(VENV)/bin/python
EXTRAS := lab,grade,dev
LOG := build/install.log
CHECKED := tests/test_language.py tests/test_claims.py tests/test_nbdev.py tests/test_notebooks.py tests/test_pages.py tests/test_bank.py tests/test_exercises.py

# The environment is made anew when this changes: what is asked for, what is pinned, and where the repository lies.
# A hash, not time stamps: a fresh checkout or a `touch` reinstalls nothing.
KEY := $(shell { cat pyproject.toml constraints.txt; echo '$(EXTRAS) $(CURDIR)'; } | cksum | tr ' ' '-')
STAMP := $(VENV)/.installed-$(KEY)

# Two notebooks at a time, one thread each, and nobody asks the network.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 \
  PYDEVD_DISABLE_FILE_VALIDATION=1

.PHONY: help venv lab edit check test test-slow soak export outputs timings site site-checks experiment experiments-again pretrain wheel clean

help:  ## list the targets
	@echo "make TARGET: the environment in $(VENV) is made when it is first needed"
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'
	@echo "settings: PYTHON=python3.12 (makes $(VENV)) · TORCH_INDEX=address of an index with PyTorch, or empty for pip's own (see README)"

# One sentence for what went wrong; the rest is in the log.
FAIL = { echo "make: $(1)" >&2; exit 1; }

venv:  ## make the environment, or bring it up to date
	@if [ -e $(STAMP) ] && $(PY) -c '' 2>/dev/null; then exit 0; fi; \
	found=; \
	for candidate in $(if $(PYTHON),'$(PYTHON)',python3 python3.13 python3.12 python3.11 python); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    found=$$candidate; break; fi; \
	done; \
	[ -n "$$found" ] || $(call FAIL,$(if $(PYTHON),$(PYTHON) is not,there is no) Python 3.11 or newer$(if $(PYTHON),,\
 on PATH): install one from python.org or name one with PYTHON=/path/to/python3); \
	mkdir -p build; : > $(LOG); \
	if ! $(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >>$(LOG) 2>&1; then \
	  echo "making $(VENV) with $$("$$found" --version)"; \
	  "$$found" -m venv --clear $(VENV) >>$(LOG) 2>&1 || \
	    $(call FAIL,$$found could not make $(VENV) (see $(LOG); Debian and Ubuntu need the package python3-venv)); \
	fi; \
	rm -f $(VENV)/.installed-*; \
	$(PY) tools/install.py --extras '$(EXTRAS)' --torch-index '$(TORCH_INDEX)' --log $(LOG) || exit $$?; \
	$(PY) -S tools/ascii_path.py $(VENV) || $(call FAIL,the path of the editable install could not be rewritten in $(VENV)); \
	: > $(STAMP); echo "$(VENV) is ready"

# Ctrl-C is how JupyterLab is ended (130), so it is no error; the trap lets the shell wait for JupyterLab's answer to it.
lab: venv  ## open the course in JupyterLab (ARGS="--lang zh --no-browser …")
	@trap : INT; $(VENV)/bin/bertcourse lab $(ARGS) || [ $$? -eq 130 ]

edit: venv  ## open the sources of the course in JupyterLab
	@$(PY) -m jupyterlab nbs --LabApp.news_url=None \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(ARGS)

# Nothing is run here but what takes no model: prose, code, outputs and numbers agree with each other. Under a minute.
check: venv  ## look for drift between prose, code, outputs, claims, modules and pages, without running them
	@$(VENV)/bin/ruff check .
	@$(PY) tools/notebooks.py check
	@$(TEST_ENV) $(PY) -m pytest -q -rfE -n 2 -m check $(ARGS) $(CHECKED)

# A restarted worker crashes and hangs on the same test; without a restart the run ends and names it.
test: venv  ## run every notebook and the tests (NB="nbs/01_bert.ipynb": only these)
	@echo "running $(if $(NB),$(NB),the notebooks in nbs/ and the tests in tests/)"
	@$(TEST_ENV) $(PY) -m pytest -q -rfEs --nbval-lax --nbval-current-env -n 2 --dist loadfile --max-worker-restart=0 \
	  --ignore=tests/slow $(ARGS) $(if $(NB),$(NB),nbs tests)

# Exit code 5: no test was chosen by ARGS from that half.
test-slow: venv  ## wheel, JupyterLab in a browser, whatever takes minutes
	@echo "running tests/slow: two at a time, then those that need the machine for themselves"
	@$(TEST_ENV) $(PY) -m pytest -v -rfEs -n 2 --dist loadscope --max-worker-restart=0 -m "not alone" $(ARGS) tests/slow; first=$$?; \
	$(TEST_ENV) $(PY) -m pytest -v -rfEs -m alone $(ARGS) tests/slow; second=$$?; \
	case $$first,$$second in 0,0|0,5|5,0) ;; *) exit 1 ;; esac

soak: venv  ## the service under load and faults, for long (ARGS: N times as long, default 10)
	@echo "running tests/slow/test_serving_load.py, $(or $(ARGS),10) times as long"
	@$(TEST_ENV) BERTCOURSE_SOAK=$(or $(ARGS),10) $(PY) -m pytest -v -s -rfEs tests/slow/test_serving_load.py

export: venv  ## write the modules in bertcourse/ from the notebooks, and clean the notebooks
	@echo "writing bertcourse/*.py from nbs/"
	@$(VENV)/bin/nbdev_export
	@$(VENV)/bin/nbdev_clean

outputs: venv  ## run notebooks and store their outputs (NB="nbs/01_bert.ipynb"; default: all)
	@$(PY) tools/notebooks.py outputs $(NB)

timings: venv  ## measure each notebook's seconds and memory into timings.json (NB=…)
	@$(PY) tools/notebooks.py timings $(NB)

site: venv  ## build the site into _docs/, and check it (rendering needs Quarto, some checks a browser)
	@$(PY) tools/site.py build $(ARGS)

site-checks: venv  ## check the site in _docs/: links, weight, errors, overflow, accessibility, languages, search
	@$(PY) tools/site_checks.py $(ARGS)

experiment: venv  ## run a recorded experiment anew (ID=…)
	@[ -n "$(ID)" ] || $(call FAIL,name the experiment: make experiment ID=the-name-of-a-file-in-experiments)
	@$(PY) -m bertcourse.experiments run $(ID)

experiments-again: venv  ## rerun one seed of every arm of every recorded experiment, every family in every task, the whole of TinyBERT (two hours on two cores)
	@$(TEST_ENV) BERTCOURSE_RERUN=all $(PY) -m pytest -v -rfEs -n 2 --dist loadscope $(ARGS) tests/slow/test_experiments.py tests/slow/test_families.py tests/slow/test_tinybert_run.py

pretrain: venv  ## pre-train the shipped model anew, three seeds (hours; ARGS="--processes 1")
	@$(PY) tools/ship_model.py train $(ARGS)
	@$(PY) tools/ship_model.py ship $(ARGS)

wheel: venv  ## build wheel and sdist into dist/
	@$(PY) -m build --no-isolation --outdir dist .

clean:  ## remove what was built; .venv and workspaces stay
	@rm -rf build dist _proc _docs .pytest_cache .ruff_cache .hypothesis
	@find bertcourse nbs tests tools benchmarks exercises \( -name __pycache__ -o -name .ipynb_checkpoints \) \
	  -prune -exec rm -rf {} +
