"""A session in words: which browser, from where, since when."""

from dataclasses import dataclass
from datetime import datetime, timezone

from tornado_sessions import SessionInfo

BROWSERS = (  # the first that is in the user agent: most claim to be those below, too
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("Chrome", "Chrome"),
    ("CriOS", "Chrome"),
    ("Safari", "Safari"),
    ("curl", "curl"),
)
SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
HELD_IN_HANDS = {"iPhone", "iPad", "Android"}
STEPS = ((60, "minute"), (3600, "hour"), (86400, "day"))


@dataclass(frozen=True)
class Device:
    """One line of the list of devices."""

    handle: str
    browser: str
    held: bool
    address: str
    since: str
    seen: str
    room: str | None
    """Where it is in the chat right now, if it is."""
    this: bool


def device(info: SessionInfo, room: str | None, *, this: bool) -> Device:
    """Put a session into words."""
    browser, system = browser_of(info.user_agent)
    return Device(
        handle=info.handle,
        browser=f"{browser} on {system}" if system else browser,
        held=system in HELD_IN_HANDS,
        address=info.ip or "unknown address",
        since=ago(info.authenticated_at or info.created_at),
        seen=ago(info.last_seen_at),
        room=room,
        this=this,
    )


def browser_of(user_agent: str) -> tuple[str, str]:
    """Name the browser and the system that a user agent speaks of."""
    named = [name for sign, name in BROWSERS if sign in user_agent]
    systems = [name for sign, name in SYSTEMS if sign in user_agent]
    return (named or ["Unknown browser"])[0], (systems or [""])[0]


def ago(when: datetime) -> str:
    """Say how long something is ago, in the largest unit that fits."""
    seconds = (datetime.now(timezone.utc) - when).total_seconds()
    words = "just now"
    for length, unit in STEPS:
        count = int(seconds // length)
        if count:
            words = f"{count} {unit}{'s' if count > 1 else ''} ago"
    return words
