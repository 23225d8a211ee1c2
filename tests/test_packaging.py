"""What is shipped, and what the files at the root say about it."""

import ast
import configparser
import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tornado_sessions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "tornado_sessions"
INSTALLED = Path(tornado_sessions.__file__).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PYPROJECT["project"]["version"]

OPTIONAL = {
    "aioredis",
    "cryptography",
    "hypothesis",
    "motor",
    "pymongo",
    "pytest",
    "redis",
}

MARKED_COMMAND = re.compile(
    r"^<!-- (\S+-command) -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def commands():
    """Give the commands of the README by their markers."""
    return {
        marker: command.removesuffix("\n")
        for marker, command in MARKED_COMMAND.findall(text("README.md"))
    }


class AtRunTime(ast.NodeTransformer):
    """Leaves out what only a type checker sees."""

    def visit_If(self, node):
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return node.orelse
        return self.generic_visit(node)


def imported_modules(path):
    """Give the absolute name of every module that a file imports when it runs."""
    whole = AtRunTime().visit(ast.parse(path.read_text(encoding="utf-8")))
    for node in ast.walk(whole):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offered(cls):
    """Give the names of the public methods and properties that a class defines."""
    for name, value in vars(cls).items():
        described = (classmethod, staticmethod, property)
        if not name.startswith("_") and (
            isinstance(value, described) or inspect.isfunction(value)
        ):
            yield name


def documented(cls, member):
    """Tell whether a member has a docstring, its own or an inherited one."""
    return any(
        inspect.getdoc(vars(base)[member])
        for base in cls.__mro__
        if member in vars(base)
    )


def test_the_newest_release_in_the_changelog_is_the_version():
    """The first release in the changelog, out or not, is the version of the project."""
    headings = re.findall(r"^## \[(.+?)\]", text("CHANGELOG.md"), re.MULTILINE)
    releases = [name for name in headings if name != "Unreleased"]
    assert releases[0] == VERSION
    assert "Unreleased" not in headings[1:]


def test_the_installed_version_is_the_version():
    """What is installed calls itself by the version in pyproject.toml."""
    try:
        installed = importlib.metadata.version("tornado-sessions")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed, only on the path")
    assert installed == VERSION


def test_type_checkers_find_the_types():
    """The marker py.typed lies beside the code that is imported."""
    assert (INSTALLED / "py.typed").is_file()


def test_every_module_is_shipped():
    """Each module of the working tree is importable from where users import."""
    modules = {path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")}
    assert {path for path in modules if not (INSTALLED / path).is_file()} == set()


def test_the_listed_packages_are_those_that_exist():
    """The list of packages in pyproject.toml names every folder with code."""
    folders = {path.parent.relative_to(ROOT) for path in SOURCE.rglob("__init__.py")}
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert set(listed) == {".".join(folder.parts) for folder in folders}


def test_import_needs_no_optional_driver():
    """A fresh interpreter imports the package without any optional driver."""
    code = (
        f"import sys; sys.path.insert(0, {str(INSTALLED.parent)!r})\n"
        "import tornado_sessions\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = set(result.stdout.split())
    assert "tornado_sessions" in loaded
    assert loaded & OPTIONAL == set()


def test_only_web_imports_tornado_web():
    """Handlers stay in the modules that wrap or decorate them: no other imports tornado's."""
    importers = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if {"tornado.web", "tornado.websocket"} & set(imported_modules(path))
    }
    handlers = {"web.py", "websocket.py", "xsrf_handler.py"}
    assert importers - {"testing.py"} == {"freshness.py", *handlers}


def test_every_extra_has_code_that_needs_it():
    """An extra is declared only for what is imported, or tested as handed in."""
    tests = [*(ROOT / "tests").glob("test_store_*.py"), ROOT / "tests/test_uvloop.py"]
    used = {
        name.partition(".")[0]
        for path in (*SOURCE.rglob("*.py"), *tests)
        for name in imported_modules(path)
    }
    extras = PYPROJECT["project"].get("optional-dependencies", {})
    needed = {
        re.split(r"[^\w.-]", requirement)[0]
        for requirements in extras.values()
        for requirement in requirements
    }
    assert needed - used == set()


def test_public_names_are_listed_and_sorted():
    """Every public name of the package is in `__all__`, which is sorted."""
    public = {
        name
        for name, value in vars(tornado_sessions).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    } - {"annotations"}
    listed = tornado_sessions.__all__
    assert set(listed) == public
    assert list(listed) == sorted(listed, key=lambda name: (not name.isupper(), name))


@pytest.mark.parametrize("name", tornado_sessions.__all__)
def test_public_names_are_documented(name):
    """Every public class and function is documented, and so is all it offers."""
    value = getattr(tornado_sessions, name)
    if inspect.isclass(value):
        assert (vars(value).get("__doc__") or "").strip()
        assert {
            member for member in offered(value) if not documented(value, member)
        } == (set())
    elif inspect.isroutine(value):
        assert (value.__doc__ or "").strip()


def test_the_readme_has_its_commands():
    """The README marks three commands of one line: the shop, the chat and the tests."""
    assert list(commands()) == ["shop-command", "chat-command", "test-command"]
    assert all("\n" not in command for command in commands().values())


def test_the_ci_runs_the_command_of_the_readme():
    """CI reads the test command from the README, CONTRIBUTING repeats it."""
    assert "readme_command test-command" in text(".ci/run")
    assert commands()["test-command"] in text("CONTRIBUTING.md")


def test_the_parts_agree():
    """CI requires every part that can be installed, and CONTRIBUTING explains each."""
    call = re.compile(r'require_part\(\s*"(\w+)"')
    tests = (ROOT / "tests").rglob("*.py")
    known = {part for path in tests for part in call.findall(path.read_text("utf-8"))}
    [required] = re.findall(r"^REQUIRED_PARTS=(\S+)$", text(".ci/run"), re.MULTILINE)
    explained = re.findall(
        r"^\| `(\w+)` \| .+ \| no ", text("CONTRIBUTING.md"), re.MULTILINE
    )
    assert set(required.split(",")) == set(explained) == known - {"aioredis"}


def test_the_pythons_agree():
    """Classifiers, tox and requires-python name the same Pythons."""
    found = re.findall(
        r"^Programming Language :: Python :: (3\.\d+)$",
        "\n".join(PYPROJECT["project"]["classifiers"]),
        re.MULTILINE,
    )
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    environments = set(re.split(r"[,\s]+", tox["tox"]["env_list"]))
    assert PYPROJECT["project"]["requires-python"] == f">={found[0]}"
    assert {f"py{python.replace('.', '')}" for python in found} == {
        name for name in environments if re.fullmatch(r"py3\d+", name)
    }


def test_the_oldest_drivers_agree():
    """Extras, tox and the page about stores name the same oldest drivers."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    [encryption] = extras["encryption"]
    [loop] = extras["uvloop"]
    oldest = sorted(one for requirements in extras.values() for one in requirements)
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    tested = sorted(tox["testenv:oldest-drivers"]["deps"].split())
    assert [one.replace(">=", "==") for one in oldest] == tested
    page = text("docs/stores/index.md")
    drivers = [one for one in oldest if one not in (encryption, loop)]
    assert all(f" {one.partition('>=')[2]} or later |" in page for one in drivers)
    assert f" {encryption.partition('>=')[2]} or later" in text("docs/encryption.md")
    assert f" {loop.partition('>=')[2]} or later" in text("docs/costs.md")


def test_the_linters_agree():
    """The pre-commit hooks use the same release of ruff as tox."""
    [pin] = PYPROJECT["dependency-groups"]["lint"]
    pins = re.findall(r'"(ruff==[\d.]+)"', text(".pre-commit-config.yaml"))
    assert set(pins) == {pin}
