"""The README and the documentation: what they show runs, what they link to exists."""

import re

import pytest

import tornado_sessions
from docpages import ROOT, Page, blocks, compare, pages
from tornado_sessions import testing

DOCS = ROOT / "docs"
STORES = ["memory", "file", "sqlite"]
FIRST_SCREEN = 40
MAX_PROGRAM = 22

LINK = re.compile(r"\]\(([^)\s]+)\)")
IMAGE = re.compile(r'(?:src|srcset)="([^"]+)"')
CODE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
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
    async with Page() as reader:
        for block in blocks(page):
            await reader.run(block)


@pytest.mark.parametrize("page", pages(), ids=name_of)
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
    headings = HEADING.findall(prose(DOCS / f"stores/{store}.md"))[1:]
    common = ["Setup", "Example", "Expiry and cleanup", "Layout"]
    assert headings == [*common, "Several processes", "Limits"]


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
