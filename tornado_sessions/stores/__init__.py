"""Where sessions are kept. Each store is imported from its own module."""

from tornado_sessions.stores.base import Store as Store
from tornado_sessions.stores.url import store_from_url as store_from_url

__all__ = ["Store", "store_from_url"]
