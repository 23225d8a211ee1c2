"""Foghorn, a chat that shows where one is logged in, and logs out everywhere."""

from .app import make_app as make_app

__all__ = ["make_app"]
