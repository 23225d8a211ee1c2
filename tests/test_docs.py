"""The README and the documentation: what they show runs, what they link to exists."""

import re

import pytest

import tornado_sessions
from docpages import ROOT, Page, blocks, compare, databases, pages
from tornado_sessions import store_from_url, testing

DOCS = ROOT / "docs"
STORES = ["memory", "file", "sqlite", "redis", "mongo"]
FIRST_SCREEN = 40
MAX_PROGRAM = 22
FEW = 5

LINK = re.compile(r"\]\(([^)\s]+)\)")
IMAGE = re.compile(r'(?:src|srcset)="([^"]+)"')
CODE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
URL = re.compile(r"^(?:\| `(\S+?://\S*)` \|.*|(\w\S+://\S+))$", re.MULTILINE)
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def prose(path):
    """Give a page without its code."""
    return CODE.sub("", path.read_text(encoding="utf-8"))


def anchors(path):
    """Give what a link to a page may have after its #."""
    text = prose(path)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        for title in HEADING.findall(text)
    }


def first_program():
    """Give the first Python block of the README."""
    return next(b for b in blocks(ROOT / "README.md") if b.kind == "python")


@pytest.mark.parametrize("page", pages(), ids=name_of)
async def test_code_runs(page, tmp_path, monkeypatch):
    """Every block of code on a page runs, and prints what the page shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COOKIE_SECRET", "")
    with databases(page) as addresses:
        async with Page(addresses) as reader:
            for block in blocks(page):
                await reader.run(block)


@pytest.mark.parametrize("page", [*pages(), ROOT / "SECURITY.md"], ids=name_of)
def test_links_lead_somewhere(page):
    """A link to a file of the project names one that exists, and a heading in it."""
    missing = []
    text = prose(page)
    for link in LINK.findall(text) + IMAGE.findall(text):
        place, _, anchor = link.partition("#")
        if "://" in link or place.startswith(("mailto:", "_build")):
            continue
        target = (page.parent / place).resolve() if place else page
        known = target.suffix != ".md" or not anchor or anchor in anchors(target)
        if not target.exists() or not known:
            missing.append(link)
    assert missing == []


def test_the_program_of_the_readme_is_the_example():
    """The first program of the README is examples/counter.py, byte for byte."""
    first = first_program()
    assert first.code == (ROOT / "examples/counter.py").read_text(encoding="utf-8")
    assert first.code.count("\n") <= MAX_PROGRAM


def test_the_program_is_on_the_first_screen():
    """The first 40 lines of the README hold its first program, whole."""
    first = first_program()
    assert first.line + first.code.count("\n") <= FIRST_SCREEN


@pytest.mark.parametrize("store", STORES)
def test_store_pages_have_the_same_headings(store):
    """Each store is described under the same headings, in the same order."""
    headings = SECTION.findall(prose(DOCS / f"stores/{store}.md"))
    common = ["Setup", "Example", "Expiry and cleanup", "Layout"]
    assert headings == [*common, "Several processes", "Limits"]


@pytest.mark.parametrize("store", STORES[1:])
def test_every_url_of_a_store_is_taken(store, tmp_path, monkeypatch):
    """Each URL in the table of a store makes one, and connects to nothing."""
    monkeypatch.chdir(tmp_path)
    page = (DOCS / f"stores/{store}.md").read_text(encoding="utf-8")
    urls = ["".join(found) for found in URL.findall(page)]
    assert urls
    assert {type(store_from_url(url)).__module__ for url in urls} == {
        f"tornado_sessions.stores.{store}"
    }


@pytest.mark.parametrize("name", tornado_sessions.__all__ + testing.__all__)
def test_every_public_name_is_in_the_reference(name):
    """The API page documents each public name."""
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    assert re.search(rf"^\.\. auto\w+:: (\w+\.)*{name}$", reference, re.MULTILINE)


def test_every_error_is_explained():
    """The page about errors has a section for each exception."""
    headings = HEADING.findall(prose(DOCS / "errors.md"))
    errors = {
        name
        for name in tornado_sessions.__all__
        if isinstance(getattr(tornado_sessions, name), type)
        and issubclass(getattr(tornado_sessions, name), Exception)
    }
    assert {name for name in errors if f"`{name}`" not in headings} == {"SessionError"}


@pytest.mark.parametrize("database", ["redis", "mongo"])
def test_what_a_database_says_is_what_the_code_says(database):
    """The page about errors quotes the advice of the stores word for word."""
    folder = ROOT / "tornado_sessions/stores"
    code = "".join(path.read_text("utf-8") for path in folder.glob(f"{database}_*.py"))
    _, *sections = prose(DOCS / "errors.md").split("\n### What ")
    [section] = [one for one in sections if one.lower().startswith(database)]
    said = re.findall(r"^\| (?!it says)([^|`]+?) \|", section, re.MULTILINE)
    assert len(said) > FEW
    assert [words for words in said if words not in code] == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("visit number 2", "visit number 1"), ("a\nb", "a"), ("", "x")],
)
def test_a_wrong_example_is_found(shown, printed):
    """What is printed must be what is shown, so that this file can fail."""
    with pytest.raises(AssertionError):
        compare("here", shown, printed)


def test_no_block_is_skipped_unseen(tmp_path):
    """A block of an unknown kind is an error, since nothing would run it."""
    page = tmp_path / "page.md"
    page.write_text("```pyhton\n1 / 0\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match="pyhton"):
        list(blocks(page))
