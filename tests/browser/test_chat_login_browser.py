"""The example chat in a real Chromium: requests that are under way during a log-in."""

import asyncio

import pytest

from chat_visitor import open_chat
from chromiumkit import PATIENCE_MS

pytestmark = pytest.mark.slow
ROUNDS = 200

LOG_IN_AMID_REQUESTS = """
async (round) => {
  // An anonymous session with something in it, as log-out leaves one behind.
  const token = document.querySelector("[name=_xsrf]").value;
  const send = (path, fields) => fetch(path, {
    method: "POST", body: new URLSearchParams({ _xsrf: token, ...fields }) });
  await send("/logout", {});

  const name = `Ada ${round}`;
  const seen = async (answer) =>
    (await (await answer).text()).includes(`Logged in as ${name}`) ? "in" : "out";
  const others = [];
  let done = false, late = 0;
  const other = (number) => {
    // Some write to the session: a name that is none leaves a note in it.
    const answer = number % 4 ? fetch("/devices") : send("/login", { name: "" });
    others.push(seen(answer).then((what) => { late += done && what === "out"; }));
  };
  for (let number = 0; number < 10; number++) other(number);
  const login = send("/login", { name }).then(seen);
  for (let number = 10; number < 20; number++) other(number);

  const first = await login;
  done = true;
  const next = await seen(fetch("/devices")); // while the others still come in
  await Promise.all(others);
  const last = await seen(fetch("/devices"));
  return { first, next, last, late };
}
"""


@pytest.fixture
async def page(chromium, tmp_path):
    """The door of the chat, in a fresh profile."""
    async with open_chat(tmp_path) as chat:
        profile = await chromium.new_context(base_url=chat.url)
        profile.set_default_timeout(PATIENCE_MS)
        page = await profile.new_page()
        await page.goto("/login")
        yield page
        await profile.close()


async def test_twenty_requests_while_logging_in(page):
    """A browser that asks 20 things while it logs in, is logged in after; 200 times (C6).

    Neither an answer to a request from before the log-in, nor what such a request writes,
    takes the new session away. How many came in late is printed (``pytest -rP``); the
    order is forced by none, tests/test_http_races.py does that.
    """
    late = 0
    for number in range(ROUNDS):
        seen = await page.evaluate(LOG_IN_AMID_REQUESTS, number)
        late += seen.pop("late")
        assert seen == {"first": "in", "next": "in", "last": "in"}, number
    print(f"{late} of {20 * ROUNDS} requests were answered late, as anonymous")
