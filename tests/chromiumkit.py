"""What the tests in a browser measure, and how long they wait."""

PATIENCE_MS = 20_000


async def scroll_width(page):
    """Measure how wide the page is, which is more than the screen if it scrolls."""
    return await page.evaluate("document.documentElement.scrollWidth")
