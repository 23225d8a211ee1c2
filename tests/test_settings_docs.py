"""The table of settings, against the code."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tornado_sessions import SessionConfig
from tornado_sessions.config import MANAGER_KEY, PREFIX, STORE_KEY
from tornado_sessions.stores.url import _SCHEMES

PAGE = Path(__file__).parents[1] / "docs/settings.md"
ROW = re.compile(r"^\| `(session_\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
UNITS = {"s": 1, "min": 60, "h": 3600, "day": 86400, "days": 86400, "KiB": 1024}
OTHERS = {STORE_KEY: "memory://", MANAGER_KEY: None, "session_preset": None}


def table():
    """Give the rows of the table: setting, type, default, meaning."""
    return ROW.findall(PAGE.read_text(encoding="utf-8"))


def value_of(cell):
    """Give the value that a default stands for, such as `14 days` or `"auto"`."""
    cell = cell.strip("`")
    quantity = re.fullmatch(r"(\d+) (\w+)", cell)
    if quantity:
        return int(quantity[1]) * UNITS[quantity[2]]
    return {"None": None, "True": True, "False": False, "{}": {}}.get(
        cell, cell.strip('"')
    )


def defaults():
    """Give every setting with the default that the code has."""
    found = {}
    for field in fields(SessionConfig):
        make = field.default_factory
        found[PREFIX + field.name] = make() if callable(make) else field.default
    return found


def test_the_table_has_every_setting():
    """The table names each setting once, and none that the code does not know."""
    names = [row[0] for row in table()]
    assert sorted(names) == sorted([*defaults(), *OTHERS])


@pytest.mark.parametrize("setting", [*defaults(), *OTHERS])
def test_the_table_has_the_default(setting):
    """The default in the table is the one in the code."""
    [shown] = [value_of(row[2]) for row in table() if row[0] == setting]
    assert shown == {**defaults(), **OTHERS}[setting]


def test_every_kind_of_url_is_listed():
    """The page names each beginning of a URL that `session_store` takes, and no other."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## The URL of a store\n")[2]
    table = text.partition("\n## ")[0]
    assert set(re.findall(r"`([a-z+]+)://`", table)) == set(_SCHEMES)
