"""The example chat in a real Chromium: requests that are under way during a log-in."""

import pytest

from chat_visitor import open_chat
from chromiumkit import PATIENCE_MS

pytestmark = pytest.mark.slow
ROUNDS = 200

LOG_IN_AMID_REQUESTS = """
async (round) => {
  // An anonymous session with something in it, as log-out leaves one behind.
  const token = document.querySelector("[name=_xsrf]").value;
  const send = (path, fields) => fetch(path, { method: "POST", redirect: "manual",
    body: new URLSearchParams({ _xsrf: token, ...fields }) });
  await send("/logout", {});

  const name = `Ada ${round}`;
  const isIn = async (answer) =>
    (await (await answer).text()).includes(`Logged in as ${name}`);
  let done = false, late = 0;
  const others = [];
  const ask = (count) => {
    for (let number = 0; number < count; number++) {
      // Half of them write to the session: a name that is none leaves a note in it.
      const answer = number % 2
        ? isIn(fetch("/devices")) : send("/login", { name: "" }).then(() => false);
      others.push(answer.then((was) => { late += done && !was; }));
    }
  };
  ask(4);
  const login = send("/login", { name });
  ask(16);

  await login;
  done = true; // the new cookie is there, and nothing may take it away
  const first = await isIn(fetch("/devices")); // while the others still come in
  await Promise.all(others);
  const last = await isIn(fetch("/devices"));
  return { first, last, late };
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
        assert seen == {"first": True, "last": True}, number
    print(f"{late} of {20 * ROUNDS} answers came later than that to the log-in")
