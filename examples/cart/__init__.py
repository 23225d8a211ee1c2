"""Leeward, a small shop whose cart outlives the server."""

from .app import make_app as make_app

__all__ = ["make_app"]
