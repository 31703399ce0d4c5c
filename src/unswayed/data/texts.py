"""What a reader sees of a text, and what may be a name."""

from __future__ import annotations

import unicodedata

import regex

from unswayed.core.errors import InputError

# Unicode's default-ignorable characters (zero-width ones, soft hyphens, variation selectors, tags),
# controls, and the empty Braille cell.
INVISIBLE = regex.compile(r"[[\p{Default_Ignorable_Code_Point}\p{Cc}\u2800]--[\s]]", regex.VERSION1)


def visible(text: str) -> str:
    """The text as it looks: composed (NFC), with single spaces, without invisible characters."""
    return " ".join(unicodedata.normalize("NFC", INVISIBLE.sub("", text)).split())


def identifier(value: object, field: str = "id") -> str:
    """A text or a whole number as a name, without space around it.

    Raises:
        InputError: it is something else, or shows nothing.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"{field} is {value!r}, it must be a text or a whole number")
    if not visible(text := str(value).strip()):
        raise InputError(f"{field} is empty")
    return text
