"""The house itself: imports go down only, adapters do not know each other, drivers stay in their adapter,
modules stay short, and the public names are what the documentation says."""

from __future__ import annotations

import ast
import importlib
import inspect
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "src" / "rowferry"

#: Floor of each module, by the longest prefix that fits; a module imports from its own floor or below.
FLOORS = {
    "rowferry": 6,  # the public names
    "rowferry.__main__": 6,
    "rowferry.cli": 5,
    "rowferry.printout": 5,
    "rowferry.api": 4,
    "rowferry.engine": 3,
    "rowferry.adapters": 2,
    "rowferry.stages": 2,
    "rowferry._native": 1,
    "rowferry.convert": 1,
    "rowferry.stages.spec": 0,  # shapes alone, as a job.toml has them
    "rowferry.config": 0,
    "rowferry.endpoint": 0,
    "rowferry.errors": 0,
    "rowferry.failpoints": 0,
    "rowferry.limits": 0,
    "rowferry.compute": 0,
    "rowferry.model": 0,
    "rowferry.redaction": 0,
    "rowferry.selection": 0,
    "rowferry.types": 0,
}
ENGINES = {"sqlite", "duckdb", "files", "postgres", "mysql"}
#: Each driver, and the one adapter that may import it.
DRIVERS = {
    "sqlite3": "sqlite",
    "duckdb": "duckdb",
    "pg8000": "postgres",
    "psycopg": "postgres",
    "scramp": "postgres",
    "adbc_driver_postgresql": "postgres",
    "adbc_driver_manager": "postgres",
    "pymysql": "mysql",
}
#: The transform's expressions are DuckDB's SQL: it is their library there, and no database's driver.
LIBRARIES = {"rowferry.stages.expression_query": "duckdb", "rowferry.stages.candidates": "duckdb"}
MODULE_LINES_MAX = 650

PUBLIC = {
    "ConfigError", "DataError", "DifferenceError", "JobSummary", "LedgerError", "PlanReport", "RefusedError", "Report",
    "RowferryError", "SourceError", "StoppedError", "TableReport", "TargetError", "copy", "jobs", "plan", "resume",
    "retry_quarantined", "verify",
}  # fmt: skip


def module_files() -> list[pathlib.Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(module: str) -> int:
    if module == "rowferry":
        return FLOORS[module]
    fitting = [name for name in FLOORS if name != "rowferry" and (module == name or module.startswith(name + "."))]
    assert fitting, f"{module} has no floor: give it one here and in docs/ARCHITECTURE.md"
    return FLOORS[max(fitting, key=len)]


def imports(path: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Every module that the file imports, also inside functions and under TYPE_CHECKING, with its line."""
    modules = {module_name(p) for p in module_files()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                # `from rowferry import limits` imports a module, `from rowferry.errors import X` a name.
                submodule = whole in modules or (node.module or "").startswith("rowferry._native")
                yield whole if submodule else node.module or "", node.lineno


def engine_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["rowferry", "adapters"] and len(parts) > 2 and parts[2] in ENGINES else None


@pytest.mark.parametrize("part", ["adapters", "convert", "engine", "stages"])
def test_modules_of_a_part_import_each_other_in_no_circle(part: str) -> None:
    """Not inside functions and not under TYPE_CHECKING either: two modules that need each other are one."""
    known = {module_name(p): p for p in module_files() if part in p.parts}
    # A package's __init__ is its front, which its own modules stand behind.
    graph = {
        module: {i for i, _ in imports(path) if i in known and i != module and path.name != "__init__.py"}
        for module, path in known.items()
    }
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' → '.join((*way[way.index(module) :], module))}"
        if module not in done:
            for imported in sorted(graph[module]):
                walk(imported, (*way, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())


@pytest.mark.parametrize("path", module_files(), ids=module_name)
def test_module_imports_go_down_only(path: pathlib.Path) -> None:
    module = module_name(path)
    for imported, line in imports(path):
        if imported.split(".")[0] != "rowferry":
            continue
        if imported == "rowferry":
            # Only for what the package itself holds, such as __version__.
            assert floor(module) >= 5 or module == "rowferry", f"{module}:{line} imports the package's front"
            continue
        assert floor(imported) <= floor(module), f"{module}:{line} (floor {floor(module)}) imports {imported}"


@pytest.mark.parametrize("path", module_files(), ids=module_name)
def test_adapters_and_stages_do_not_know_each_other(path: pathlib.Path) -> None:
    module = module_name(path)
    for imported, line in imports(path):
        engine = engine_of(imported)
        if engine is not None:
            assert engine_of(module) == engine, f"{module}:{line} imports the adapter {imported}"
        if imported.startswith("rowferry.adapters"):
            assert not module.startswith("rowferry.stages"), f"{module}:{line}: a stage imports {imported}"
        if imported.startswith("rowferry.stages"):
            assert not module.startswith("rowferry.adapters"), f"{module}:{line}: an adapter imports {imported}"


@pytest.mark.parametrize("path", module_files(), ids=module_name)
def test_drivers_are_imported_by_their_adapter_only(path: pathlib.Path) -> None:
    module = module_name(path)
    for imported, line in imports(path):
        home = DRIVERS.get(imported.split(".")[0])
        if home is not None and LIBRARIES.get(module) != imported.split(".")[0]:
            assert engine_of(module) == home, f"{module}:{line} imports the driver {imported}"


@pytest.mark.parametrize("path", module_files(), ids=module_name)
def test_module_is_short_and_says_what_it_is(path: pathlib.Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_every_adapter_has_the_same_front() -> None:
    for engine in sorted(ENGINES):
        adapter = importlib.import_module(f"rowferry.adapters.{engine}")
        assert adapter.capabilities.engine == engine
        for name in ("open_source", "open_target"):
            assert list(inspect.signature(getattr(adapter, name)).parameters)[:2] == ["endpoint", "options"]
        assert (PACKAGE / "adapters" / engine / "README.md").is_file()


def test_public_names_are_these_and_documented() -> None:
    import rowferry

    assert set(rowferry.__all__) == PUBLIC
    for name in rowferry.__all__:
        assert inspect.getdoc(getattr(rowferry, name)), f"rowferry.{name} has no docstring"


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("statement", ["import rowferry", "import rowferry.cli", "import rowferry.api"])
def test_import_loads_no_driver(statement: str) -> None:
    loaded = loaded_after(statement)
    assert "rowferry" in loaded
    assert not loaded & (set(DRIVERS) - {"sqlite3"}), "drivers are loaded when a URL asks for them"


def test_import_of_the_package_and_the_command_line_loads_no_pyarrow() -> None:
    assert "pyarrow" not in loaded_after("import rowferry")
    assert "pyarrow" not in loaded_after("import rowferry.cli")
