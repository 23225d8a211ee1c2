"""Who is logged in: the application's id of a user."""

from __future__ import annotations

MAX_PRINCIPAL = 1024
"""Characters that a principal may have."""


def checked_principal(principal: str) -> str:
    """Return *principal* if it can be one.

    Raises:
        TypeError: It is not a str.
        ValueError: It is too short or too long, or cannot be encoded.
    """
    if not isinstance(principal, str):  # callers need not be type-checked
        kind = type(principal).__name__
        raise TypeError(f"the principal must be a str, not {kind}; use str(id)")
    if not 0 < len(principal) <= MAX_PRINCIPAL:
        raise ValueError(f"the principal must have 1 to {MAX_PRINCIPAL} characters")
    try:
        principal.encode()
    except UnicodeEncodeError as error:
        raise ValueError("the principal holds a lone surrogate") from error
    return str.__str__(principal)  # not of a subclass, which some stores could not keep
