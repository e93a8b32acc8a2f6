"""``name [hash]``: how pictures, manifests and plans name a checkpoint so that any host finds it again."""

from __future__ import annotations

import re

_TITLE = re.compile(r"^(?P<name>.*?)\s*\[(?P<hash>[0-9a-fA-F]{8,64})\]$", re.DOTALL)


def split(text: str) -> tuple[str, str] | None:
    """The name and the hash (lower case, 8 to 64 hexadecimal digits) of ``name [hash]``; ``None`` for another text."""
    found = _TITLE.match(text)
    return (found["name"], found["hash"].lower()) if found else None
