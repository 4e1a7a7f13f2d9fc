# make demo     the whole product on embedded data, from an empty environment
# make results-check  the study's shortest rows once more, compared with their expected results
# make results  RESULTS.md and runs/results/report.html from the records in results/
# make docs     the documentation site in site/, with its generated pages
# make test     the tests
# make gpu      all that a GPU can tell in BUDGET=15 minutes; DATA=FOLDER has CIFAR-10's batches
# make lint     ruff and mypy
# make clean    remove the environment, caches and the demo's results

PYTHON ?= python3
VENV := .venv
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

.PHONY: demo results results-check docs test gpu lint clean

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

gpu: $(VENV)/.installed
	python -m benchmarks gpu --budget-minutes $(BUDGET) $(if $(DATA),--data-root $(DATA))

lint: $(VENV)/.installed
	ruff check .
	ruff format --check .
	mypy

clean:
	rm -rf $(VENV) $(DEMO) site .pytest_cache .mypy_cache .ruff_cache *.egg-info

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; set PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	python -m pip install --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	python -m pip install --editable '.[docs]'
	touch $@
