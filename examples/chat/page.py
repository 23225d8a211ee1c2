"""What all pages of the chat share."""

from typing import Any, cast

from examples.shared.page import ExamplePage
from tornado_sessions import SessionMixin

from .devices import Device, device
from .hub import Hub, hub_of

# Scripts, styles and sockets of our own, and nothing from elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class InChat(SessionMixin):
    """A page or a socket: knows the hub, and where its visitor is logged in."""

    @property
    def hub(self) -> Hub:
        """Return where the rooms, the lines and the people are."""
        return hub_of(self.application)

    async def my_devices(self) -> list[Device]:
        """List where the visitor is logged in, this session first."""
        # Asked first: the session of a socket may end during what is awaited.
        mine, me = self.session.handle, cast(str, self.current_user)
        rooms, present = await self.hub.rooms(), await self.hub.present()
        where = {one.handle: rooms[one.room] for one in present}
        infos = await self.session_manager.sessions_of(me)
        infos.sort(key=lambda info: info.handle != mine)
        return [
            device(info, where.get(info.handle), this=info.handle == mine)
            for info in infos
        ]


class Page(InChat, ExamplePage):
    """A page of the chat."""

    content_security_policy = CONTENT_SECURITY_POLICY

    def set_default_headers(self) -> None:
        """Keep what is said out of the cache: the way back leads there, too."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    def get_template_namespace(self) -> dict[str, Any]:
        """Tell every template whether there is a socket to open."""
        return {**super().get_template_namespace(), "live": None}
