"""What a test needs besides Python: a database server, a browser."""

import os

import pytest


def require_part(name: str, present: bool, hint: str) -> None:
    """Skip the test that lacks a part, or fail it where that part is promised.

    A laptop may lack Redis or a browser, and the suite still runs there.
    Where all parts are installed, a skipped test would look like a passed one:
    ``TORNADO_SESSIONS_REQUIRE=redis,mongo,browser`` makes the lack a failure.

    Args:
        name: The part as that variable calls it.
        present: Whether it was found.
        hint: What to install, as in "install the package chromium".
    """
    if present:
        return
    message = f"{name} is missing: {hint}"
    if name in required_parts():
        pytest.fail(f"{message} (TORNADO_SESSIONS_REQUIRE asks for it)")
    pytest.skip(message)


def required_parts() -> set[str]:
    """Read the names of the parts that must not be missing."""
    names = os.environ.get("TORNADO_SESSIONS_REQUIRE", "").split(",")
    return {name.strip() for name in names} - {""}
