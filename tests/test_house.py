"""The rules of the house, read from the source."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tornado_sessions"
TESTS = ROOT / "tests"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("test_*.py"))

MAX_CODE_LINES = 250
MAX_BODY_LINES = 25

# Where it may be imported: in the modules of its store.
DRIVERS = {
    "sqlite3": "stores/sqlite",
    "redis": "stores/redis",
    "aioredis": "stores/redis",
    "pymongo": "stores/mongo",
    "motor": "stores/mongo",
    "cryptography": "encryption",
}

RUNS_CODE_WHEN_READ = {"_pickle", "dill", "jsonpickle", "marshal", "pickle", "shelve"}
NAMES_THAT_SAY_NOTHING = {"common", "compat", "helpers", "misc", "tools", "utils"}

RULES = re.findall(
    r"^\| ([A-Z][0-9]) \|",
    (ROOT / "docs/rules.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
assert len(RULES) > 50, "docs/rules.md has another form"


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def functions(node):
    return (
        child
        for child in ast.walk(node)
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def body_lines(function):
    """Count the lines of a function below its signature and docstring."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def is_import(node):
    return isinstance(node, (ast.Import, ast.ImportFrom))


def origin(node, path):
    """Give the absolute module that a `from … import` statement names."""
    if not node.level:
        return node.module
    package = module_of(path).split(".")
    ups = node.level - (path.name == "__init__.py")
    base = package[: len(package) - ups]
    return ".".join([*base, *([node.module] if node.module else [])])


def imports(node, path):
    """Give the absolute name of everything imported below a node."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            source = origin(child, path)
            yield source
            yield from (f"{source}.{alias.name}" for alias in child.names)


def edges(path):
    """Give the modules of the package that a module imports."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            source = origin(node, path)
            names = {f"{source}.{alias.name}" for alias in node.names}
            yield from names & MODULES.keys()
            if source in MODULES and names - MODULES.keys():
                yield source


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=name_of)


def code_lines(path):
    """Count the lines that are neither blank, nor comment, nor docstring."""
    strings = {
        line
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    code = (n for n, line in lines if line.strip() and line.strip()[0] != "#")
    return len(set(code) - strings)


def test_there_is_something_to_check():
    """The package and its tests are where the rules look for them."""
    assert PACKAGE / "__init__.py" in SOURCES
    assert Path(__file__) in TEST_FILES


@each(SOURCES)
def test_files_fit_in_the_head(path):
    """A file of the package has at most 250 lines of code, docstrings not counted."""
    assert code_lines(path) <= MAX_CODE_LINES


@each(SOURCES)
def test_functions_fit_on_a_screen(path):
    """A function of the package has a body of at most 25 lines."""
    lengths = {f.name: body_lines(f) for f in functions(tree(path))}
    assert {name: n for name, n in lengths.items() if n > MAX_BODY_LINES} == {}


@each(SOURCES)
def test_modules_say_what_they_are_about(path):
    """A module of the package has a docstring and a name that says something."""
    assert path.stem not in NAMES_THAT_SAY_NOTHING
    assert ast.get_docstring(tree(path))


@each(SOURCES)
def test_imports_stand_at_the_top(path):
    """No function has an import statement."""
    late = [
        ast.unparse(node)
        for function in functions(tree(path))
        for node in ast.walk(function)
        if is_import(node)
    ]
    assert late == []


@each(SOURCES)
def test_nothing_unpickles(path):
    """S4: the package never imports a format that runs code when read."""
    roots = {name.partition(".")[0] for name in imports(tree(path), path)}
    assert roots & RUNS_CODE_WHEN_READ == set()


@each(SOURCES)
def test_drivers_stay_in_their_stores(path):
    """A database driver is imported by the modules of its store only."""
    own = path.relative_to(PACKAGE).as_posix()
    roots = {name.partition(".")[0] for name in imports(tree(path), path)}
    drivers = roots & DRIVERS.keys()
    assert {root for root in drivers if not own.startswith(DRIVERS[root])} == set()


def test_imports_go_one_way():
    """The modules of the package import each other in no circle."""
    graph = {module: set(edges(path)) for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_proof(rule):
    """A rule is named by a test, or by a benchmark if it is a cost."""
    places = {*TESTS.rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")}
    if not rule.startswith("P"):
        places = set(TESTS.rglob("*.py"))
    pattern = re.compile(rf"\b{rule}\b")
    assert any(
        pattern.search(path.read_text(encoding="utf-8"))
        for path in places - {Path(__file__)}
    )


@each(TEST_FILES)
def test_tests_say_what_must_hold(path):
    """Every test has a docstring."""
    silent = [
        function.name
        for function in functions(tree(path))
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert silent == []
