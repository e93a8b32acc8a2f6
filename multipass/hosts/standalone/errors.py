"""What the command refuses besides plans: bad input, told in one line."""

from __future__ import annotations


class InputError(ValueError):
    """Input the command cannot work with; the text is one line, fit for people."""
