"""Every target, by its name: a module with ``fuzz(data)``, which fails by raising.

One that has ``grown(size)`` gives inputs of about that many bytes, on which the time may
only grow as they do.
"""

import base64
from pathlib import Path

from fuzz import (
    codec_bytes,
    codec_values,
    cookie_header,
    cookie_values,
    file_note,
    file_record,
    mongo_document,
    redis_end,
    redis_reply,
    request,
    settings,
    sqlite_row,
    store_url,
)

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
"""A folder for each target: inputs that were trouble once, or lead to all there is."""
TARGETS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(codec_bytes, codec_values, cookie_header, cookie_values, file_note),
        *(file_record, mongo_document, redis_end, redis_reply, request, settings),
        *(sqlite_row, store_url),
    )
}


NAMES = sorted(TARGETS)
FOUND = "found.txt"
"""Beside those with a name: what a fuzzer needed to get everywhere, base64 by line."""


def corpus(name):
    """Return the committed inputs of a target."""
    inputs = []
    for path in sorted((CORPUS / name).iterdir()):
        content = path.read_bytes()
        lines = content.split() if path.name == FOUND else None
        inputs += [content] if lines is None else map(base64.b64decode, lines)
    return inputs


def mixed(data):
    """Give *data* to the target that its first byte names."""
    if data:
        TARGETS[NAMES[data[0] % len(NAMES)]].fuzz(data[1:])
