"""A real Chromium, for the examples."""

import importlib.util
import shutil

import pytest

from parts import require_part

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def chromium():
    """A running Chromium of the system; nothing is downloaded."""
    hint = "install the Debian package chromium, and playwright by pip"
    driver = importlib.util.find_spec("playwright")
    require_part("browser", bool(CHROMIUM and driver), hint)

    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS
        )
        yield browser
        await browser.close()
