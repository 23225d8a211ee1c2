"""The pages of the chat, and the forms that lead from one to the next."""

from tornado.web import HTTPError, authenticated

from examples.shared.page import MAX_NAME, name_in

from .page import Page
from .sockets import MAX_TEXT

MAX_ROOM_NAME = 24


class Home(Page):
    """The way back to the room that was visited last."""

    @authenticated
    async def get(self) -> None:
        rooms = await self.hub.rooms()
        room = self.session.get("room")
        self.redirect(f"/rooms/{room if room in rooms else min(rooms)}")


class Login(Page):
    """Log in by name.

    A real chat asks for proof, also those who are logged in, and each time logs in.
    """

    def get(self) -> None:
        if self.current_user:
            self.redirect("/")
        else:
            self.render("login.html", most=MAX_NAME)

    def post(self) -> None:
        name = name_in(self.get_body_argument("name", ""))
        if name is None:
            message = f"Please give a name of 1 to {MAX_NAME} letters."
            self.session.flash(message, "error")
            self.leave_for("/login")
            return
        if self.current_user not in (None, name):
            # Somebody else was logged in here: their session ends, with its sockets.
            self.session.destroy()
        if self.current_user != name:
            # Else another tab was faster. Its sockets are of that log-in: a new one
            # would make strangers of them.
            self.session.login(name)
        self.leave_for("/")


class Logout(Page):
    """Log out: the session ends in the store, and every socket of it is closed."""

    def post(self) -> None:
        self.session.destroy()
        # Written after the end, so it begins a fresh session.
        self.session.flash("You are logged out of this browser.")
        self.leave_for("/login")


class OpenRoom(Page):
    """The form for a new room; the name of an old one leads there."""

    @authenticated
    async def post(self) -> None:
        name = name_in(self.get_body_argument("name", ""), MAX_ROOM_NAME)
        room = await self.hub.open_room(name) if name else None
        if room is None:
            hint = "or there are too many rooms" if name else "1 to 24 letters, please"
            self.session.flash(f"That room cannot be opened: {hint}.", "error")
        self.leave_for(f"/rooms/{room}" if room else "/")


class ShowRoom(Page):
    """A room: the page is the frame, and what happens in it comes by the socket."""

    @authenticated
    async def get(self, number: str) -> None:
        rooms = await self.hub.rooms()
        if int(number) not in rooms:
            raise HTTPError(404)
        self.render(
            "room.html",
            live="room",
            room=int(number),
            rooms=rooms,
            max_text=MAX_TEXT,
            max_room=MAX_ROOM_NAME,
        )


class Devices(Page):
    """Where the visitor is logged in."""

    @authenticated
    async def get(self) -> None:
        self.render(
            "devices.html",
            live="devices",
            devices=await self.my_devices(),
            most=self.session_manager.config.max_per_principal,
            said=self.session.get("said", 0),
        )


class EndDevice(Page):
    """The button that logs one other device out."""

    @authenticated
    async def post(self) -> None:
        handle = self.get_body_argument("handle", "")
        # A handle opens nothing, but nobody may end a session that is not theirs.
        mine = await self.session_manager.sessions_of(self.current_user)
        others = {info.handle for info in mine} - {self.session.handle}
        if handle in others and await self.session_manager.revoke(handle):
            self.session.flash("That device is logged out.", "success")
        else:
            self.session.flash(
                "That is none of your devices, or not any more.", "error"
            )
        self.leave_for("/devices")


class EndOthers(Page):
    """The button that logs all other devices out."""

    @authenticated
    async def post(self) -> None:
        keep = self.session.handle
        count = await self.session_manager.revoke_all(self.current_user, keep=keep)
        devices = "1 device is" if count == 1 else f"{count} devices are"
        self.session.flash(f"{devices} logged out. This one is not.", "success")
        self.leave_for("/devices")


class EndAll(Page):
    """The button that logs out everywhere, here too."""

    @authenticated
    async def post(self) -> None:
        keep = self.session.handle
        await self.session_manager.revoke_all(self.current_user, keep=keep)
        self.session.destroy()
        self.session.flash("You are logged out everywhere.", "success")
        self.leave_for("/login")


class Missing(Page):
    """Any address the chat does not have."""

    def prepare(self) -> None:
        raise HTTPError(404)
