# `make demo` and `make test` are all that a new machine needs; see README.md.
VENV := .venv
PY := $(VENV)/bin/python
.PHONY: demo test test-all quick thorough check audit bench chaos chaos-mutants crash soak month day hour fuzz format env-example pictures image clean

demo: $(VENV)/.runtime ## Run everything on this machine and show it (ARGS=--once: and stop)
	@$(PY) -m sandbox.demo $(ARGS)

test: $(VENV)/.dev ## Run each test, of its variants a few (ARGS=.. names tests: then all of them)
	@$(if $(ARGS),,SOME=1) $(PY) -m pytest -n 5 --dist worksteal $(ARGS)

test-all: $(VENV)/.dev ## Run all tests, once before a change is merged; most of them wait for processes
	@$(PY) -m pytest -n 5 --dist worksteal

quick: $(VENV)/.dev ## For every change: the unit tests, and the contract with one CRM
	@SOME=1 $(PY) -m pytest -n 3 --dist worksteal tests/unit tests/contract/test_adapters.py tests/contract/test_cases.py -k "unit or hubspot" $(ARGS)

thorough: $(VENV)/.dev ## The tests with all that is left out of them for time
	@THOROUGH=1 $(PY) -m pytest -n 5 --dist worksteal $(ARGS)

check: $(VENV)/.dev ## Lint, types, layers, the Dockerfile, risky calls
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/hadolint Dockerfile
	$(VENV)/bin/bandit -q -c pyproject.toml -r app config crm_adapters sandbox scripts workers

audit: $(VENV)/.dev ## Look the pinned packages up for known holes; says so if that is not possible here
	@$(PY) -m scripts.audit

ROWS := 100000
bench: $(VENV)/.dev ## Measure, print, and write docs/benchmarks.md (ARGS="ingest latency": these only; ROWS=..)
	@ROWS=$(ROWS) $(PY) -m tests.bench $(ARGS)

SEED := 1
BOOKINGS := 200
DATABASE := sqlite
chaos: $(VENV)/.dev ## Bookings while everything fails (SEED=.. BOOKINGS=.. DATABASE=sqlite|postgresql)
	@$(PY) -m tests.chaos.run --seed $(SEED) --bookings $(BOOKINGS) --database $(DATABASE)

chaos-mutants: $(VENV)/.dev ## Plant bugs, each by name, and see that the tests catch them
	@$(PY) -m tests.chaos.hunt $(ARGS)

crash: $(VENV)/.dev ## Kill a worker at every commit and every call, with every CRM and database
	@THOROUGH=1 $(PY) -m pytest -n 2 -q tests/chaos/test_crashes.py tests/chaos/test_leases.py

MINUTES := 60
soak: $(VENV)/.dev ## Hours in real time: does a booking ever wait without a reason? (MINUTES=.. SEED=..)
	@$(PY) -m tests.soak --minutes $(MINUTES) --seed $(SEED) --database $(DATABASE)

month: $(VENV)/.dev ## A simulated month in which something happens each hour (SEED=..)
	@MONTH_EACH_HOUR=1 MONTH_SEED=$(SEED) $(PY) -m pytest -n 2 -q tests/integration/test_month.py

day: $(VENV)/.dev ## A simulated day of bookings that nobody signs, meetergo at its worst (BOOKINGS=.. SEED=..)
	@DAY_BOOKINGS=$(BOOKINGS) DAY_SEED=$(SEED) $(PY) -m pytest -n 2 -q -s tests/integration/test_day.py

RATE := 20
RETENTION := 0
hour: $(VENV)/.dev ## An hour of bookings at a steady rate (MINUTES=.. RATE=.. DATABASE=.. RETENTION=1: half are long over)
	@$(PY) -m tests.hour --minutes $(MINUTES) --rate $(RATE) --retention $(RETENTION) --database $(DATABASE)

WEBHOOKS := 0
RAW := 0
fuzz: MINUTES := 10
fuzz: $(VENV)/.dev ## Hostile requests, mappings, callbacks and answers (MINUTES=.. for each, SEED=.., ARGS=answers: one kind; WEBHOOKS=.. RAW=.. DATABASE=..)
	@$(PY) -m tests.fuzz.run --minutes $(MINUTES) --webhooks $(WEBHOOKS) --raw $(RAW) --database $(DATABASE) --seed $(SEED) $(ARGS)

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

env-example: $(VENV)/.dev ## Make .env.example from the settings
	@$(PY) -m scripts.env_example > .env.example

pictures: $(VENV)/.dev ## Take the README's pictures from the pages as they are
	@$(PY) -m tests.browser.pictures

image: $(VENV)/.dev ## Check the Dockerfile, and run its steps as the image does, without a container engine
	@$(PY) -m scripts.check_image

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.runtime: requirements.txt constraints.txt
	@scripts/install requirements.txt $@

$(VENV)/.dev: requirements-dev.txt requirements.txt requirements-observe.txt constraints.txt
	@scripts/install requirements-dev.txt $@
