# make demo     the whole product on embedded data, from an empty environment
# make results-check  the study's shortest rows once more, compared with their expected results
# make results  RESULTS.md and runs/results/report.html from the records in results/
# make docs     the documentation site in site/, with its generated pages
# make test     the tests
# make test-lowest  the quick loop of tests with the oldest libraries that pyproject.toml admits
# make audit    what `pip install .` installs, as an SBOM, and its known vulnerabilities
# make gpu      all that a GPU can tell in BUDGET=15 minutes; DATA=FOLDER has CIFAR-10's batches
# make lint     ruff and mypy
# make clean    remove the environments, caches and the demo's results

PYTHON ?= python3
VENV := .venv
TOOLS := .venv-tools
USERS := .venv-users
LOWEST := .venv-lowest
DEMO := runs/demo
LEARNING := $(addprefix study/scattered_digits/,simclr control random)
DIGITS := $(DEMO)/study/scattered_digits
NARROW := backbone.arch=resnet18 backbone.width=16 backbone.stem=cifar
BUDGET ?= 15
SHAPES := data.train_annotations=$(DEMO)/toy_shapes/annotations/instances_train.json \
	data.train_images=$(DEMO)/toy_shapes/train \
	data.test_annotations=$(DEMO)/toy_shapes/annotations/instances_val.json \
	data.test_images=$(DEMO)/toy_shapes/val
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: demo results results-check docs test test-lowest audit gpu lint clean

# Each line is a command a user would type, with $(VENV)/bin on the PATH.
demo: $(VENV)/.installed
	rm -rf $(DEMO)
	rsa-pretrain preview digits/rsa $(DEMO)/views.png
	rsa-eval reproduce $(LEARNING) --seeds 0,1,2 --out $(DEMO) --results $(DEMO)/kept
	rsa-eval reproduce study/scattered_digits/rsa --out $(DEMO) --results $(DEMO)/kept
	rsa-eval compare $(DIGITS)/simclr --against $(DIGITS)/control
	rsa-eval compare $(DIGITS)/simclr --against $(DIGITS)/random
	rsa-eval diagnostics --random-init --config data/scattered_digits $(NARROW) --out $(DEMO)/before/records/diagnostics.json
	rsa-eval diagnostics $(DIGITS)/simclr/seed-0
	rsa-pretrain run digits/rsa training.epochs=2 output_dir=$(DEMO)/resnet18
	rsa-detect convert $(DEMO)/resnet18 $(DEMO)/detectron2/rsa_r18.pkl
	rsa-detect toy $(DEMO)/toy_shapes
	rsa-detect train toy_shapes --checkpoint $(DEMO)/resnet18 output_dir=$(DEMO)/detection $(SHAPES)
	rsa-detect visualize $(DEMO)/detection $(DEMO)/detections.html
	rsa-eval report $(DEMO)/study $(DEMO)/before $(DEMO)/resnet18 $(DEMO)/detection --out $(DEMO)/report.html
	@printf '\n%s\n' 'All results:'
	@find $(DEMO) -maxdepth 2 -not -path '*/toy_shapes/*' -not -path '*/.*' | sort

results-check: $(VENV)/.installed
	rsa-eval reproduce $(LEARNING) --seeds 0,1,2 --check --out runs/results-check --results runs/results-check/kept

results: $(VENV)/.installed
	rsa-eval report results --markdown RESULTS.md --notes results/notes.md --out runs/results/report.html

docs: $(VENV)/.docs
	python docs/generate.py
	NO_MKDOCS_2_WARNING=1 mkdocs build

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile

test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto --dist loadfile -m 'not process'

# Of today's packages: the environment is brought up to date each time.
audit: $(TOOLS)/.installed
	$(PYTHON) -m venv $(USERS)
	$(USERS)/bin/python -m pip install --upgrade --upgrade-strategy eager .
	$(TOOLS)/bin/python .ci/audit.py $(USERS) runs/supply-chain

gpu: $(VENV)/.installed
	python -m benchmarks gpu --budget-minutes $(BUDGET) $(if $(DATA),--data-root $(DATA))

lint: $(VENV)/.installed
	ruff check .
	ruff format --check .
	mypy

clean:
	rm -rf $(VENV) $(TOOLS) $(USERS) $(LOWEST) $(DEMO) site .pytest_cache .mypy_cache .ruff_cache *.egg-info

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	python -m pip install --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	python -m pip install --editable '.[docs]'
	touch $@

$(TOOLS)/.installed: Makefile
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install 'cyclonedx-bom>=7' 'pip-audit>=2.10' 'uv>=0.10'
	touch $@

$(LOWEST)/.installed: pyproject.toml $(TOOLS)/.installed
	$(TOOLS)/bin/uv venv --clear --python 3.11 $(LOWEST)
	$(TOOLS)/bin/uv pip compile --quiet --python-version 3.11 --resolution lowest-direct --extra dev \
		--output-file $(LOWEST)/requirements.txt pyproject.toml
	$(TOOLS)/bin/uv pip install --python $(LOWEST) --requirements $(LOWEST)/requirements.txt --editable .
	touch $@
