"""What a target makes of the bytes that it is given: numbers, texts, values."""

import math
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

ZONES = ("Europe/Berlin", "America/St_Johns", "Africa/Monrovia", "UTC")
NUMBERS = (0, -1, 2**53, 2**63, 2**64, 253402300800, -(2**63) - 1, 10**400, 10**5000)
FLOATS = (math.nan, math.inf, -math.inf, -0.0, 1e300, 5e-324, 253402300800.0)
DECIMALS = ("NaN", "-sNaN12", "Infinity", "-0", "1E+999999", "0.10", "1e-9999")
MOST = 40
"""Steps down into nested values before plain recursion takes over."""


class Material:
    """Reads bytes from the front; after the end there are only zeros."""

    def __init__(self, data):
        self._data = data
        self._at = 0

    def __bool__(self):
        """Tell whether any are left."""
        return self._at < len(self._data)

    def take(self, size):
        self._at += size
        return self._data[self._at - size : self._at]

    def rest(self):
        return self.take(max(0, len(self._data) - self._at))

    def byte(self):
        return self.take(1)[0] if self else 0

    def number(self):
        kind = self.byte()
        if kind < 16:
            return NUMBERS[kind % len(NUMBERS)]
        return int.from_bytes(self.take(kind % 12), "big", signed=True)

    def float(self):
        kind = self.byte()
        if kind < 16:
            return FLOATS[kind % len(FLOATS)]
        return self.number() % 2**70 / 1000

    def choice(self, options):
        return options[self.byte() % len(options)]

    def raw(self):
        return self.take(self.byte() % 48)

    def text(self):
        """Return a text of any characters, lone surrogates included."""
        kind, raw = self.byte(), self.raw()
        if kind % 3 == 0:
            return raw.decode("latin-1")
        if kind % 3 == 1:
            return raw.decode("utf-8", "surrogateescape")
        return raw[: len(raw) // 2 * 2].decode("utf-16-le", "surrogatepass")

    def several(self, make):
        return [make() for _ in range(self.byte() % 5) if self]

    def instant(self):
        day = date.fromordinal(1 + self.number() % date.max.toordinal())
        when = datetime.combine(day, time(self.byte() % 24, self.byte() % 60))
        when = when.replace(microsecond=self.byte() * 3900, fold=self.byte() % 2)
        zone = self.byte() % 4
        if zone == 1:
            offset = timedelta(seconds=self.number() % 172799 - 86399)
            return when.replace(tzinfo=timezone(offset))
        if zone == 2:
            return when.replace(tzinfo=ZoneInfo(self.choice(ZONES)))
        return when

    def scalar(self):
        kind = self.byte() % 12
        if kind < 4:
            return (None, True, False, self.text())[kind]
        if kind < 8:
            return (self.number, self.float, self.raw, self.instant)[kind - 4]()
        if kind == 8:
            return Decimal(self.choice(DECIMALS))
        if kind == 9:
            return UUID(bytes=self.take(16).ljust(16, b"\0"))
        if kind == 10:
            return date.fromordinal(1 + self.number() % date.max.toordinal())
        return timedelta(microseconds=self.number() % 10**18)

    def value(self, depth=0):
        """Return any value, hashable or not, that may be nested."""
        kind = self.byte() % 12
        if depth == MOST or kind < 6:
            return self.scalar()
        if kind == 6:
            return tuple(self.several(lambda: self.value(depth + 1)))
        if kind == 7:
            return {self.text(): self.value(depth + 1) for _ in self.several(bool)}
        if kind == 8:
            return set(self.several(self.scalar_to_hash))
        if kind == 9:
            return frozenset(self.several(self.scalar_to_hash))
        if kind == 10:
            value = self.value(depth + 1)
            for _ in range(self.byte()):
                value = [value]
            return value
        return self.several(lambda: self.value(depth + 1))

    def scalar_to_hash(self):
        value = self.scalar()
        return None if isinstance(value, Decimal) and value.is_snan() else value
