"""Text that came from elsewhere, made safe to show.

File names, labels and patients come from disks and other programs. Printed as they are, a newline
can forge a line, an escape sequence can rewrite the screen, and a mark of writing direction can
turn a name round.
"""

import math
import re

_MISLEADING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: object) -> str:
    r"""Return text on one line that does nothing but show itself, and can be written as UTF-8.

    Control characters, marks of writing direction, invisible characters and bytes that are no
    UTF-8 are shown by their number.

    >>> printable("a\x1b[31m\nfields: 0")
    'a\\x1b[31m\\x0afields: 0'
    """
    return _MISLEADING.sub(_by_number, str(text))


def _by_number(found: re.Match[str]) -> str:
    number = ord(found.group())
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8, as Python keeps it in a file name
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def shortened(text: str, most: int) -> str:
    """Return text of at most `most` characters; what is left out of its middle is marked.

    >>> shortened("abcdefghij", 7), shortened("abc", 7)
    ('abc…hij', 'abc')
    """
    if len(text) <= most:
        return text
    behind = (most - 1) // 2
    return f"{text[: most - 1 - behind]}…{text[len(text) - behind :]}"


def sentence(message: object) -> str:
    """Return a message as a printable sentence: a capital letter first, a full stop last.

    What begins with a path keeps its first letter.

    >>> sentence("nothing found"), sentence("films/a.png: no red cell"), sentence("why is 1 out?")
    ('Nothing found.', 'films/a.png: no red cell.', 'Why is 1 out?')
    """
    text = printable(message).strip()
    if _PLAIN_WORD.match(text) and not _PATH.match(text):
        text = text[0].upper() + text[1:]
    return text if not text or text.endswith(_ENDS) else f"{text}."


_PLAIN_WORD = re.compile(r"[a-z]+(?=[\s,;:]|$)")
_PATH = re.compile(r"[^:]*[./\\][^:\s]*: ")
_ENDS = (".", "!", "?", "…")


def below(value: float) -> str:
    """Return a value that is below a limit, with a decimal, rounded so that it still is.

    >>> below(15.98), below(3.0)
    ('15.9', '3.0')
    """
    return f"{math.floor(value * 10 + 1e-9) / 10:.1f}"


def plural(count: int, one: str, more: str | None = None) -> str:
    """Return a count with its noun.

    >>> plural(1, "field"), plural(1200, "field"), plural(2, "copy", "copies")
    ('1 field', '1200 fields', '2 copies')
    """
    return f"{count} {one if count == 1 else more or one + 's'}"
