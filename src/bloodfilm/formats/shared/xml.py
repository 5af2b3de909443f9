"""XML that came from anywhere: parsed without entities, and made from plain data."""

from pathlib import Path
from typing import TYPE_CHECKING

from bloodfilm.core import DataError
from bloodfilm.formats.shared.context import ReadContext
from bloodfilm.formats.shared.parsing import read_text

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def parse(reading: ReadContext, file: Path, root: str, most: int) -> "Element | None":
    """Return the XML tree, `None` (reported) if it is no text, ill-formed, or has another root.

    `DataError` if it declares entities, which blow up, or holds more than `most` characters.
    """
    from xml.etree import ElementTree

    try:
        text = read_text(file)
    except DataError as error:
        reading.report(file, "", f"{str(error).removeprefix(f'{file}: ')}; left out")
        return None
    if "<!ENTITY" in text or len(text) > most:
        raise DataError(f"{file}: declares entities or is huge, which no annotation does; check it")
    try:
        tree = ElementTree.fromstring(text.partition("?>")[2] if text[:2] == "<?" else text)
    except (ElementTree.ParseError, RecursionError, ValueError) as error:
        reading.report(file, "", f"ill-formed XML ({error}), left out", "export it again")
        return None
    if tree.tag != root:
        reading.report(file, "", f"holds <{tree.tag}>, not <{root}>, left out")
        return None
    return tree


def element(tag: str, content: object = None, **attributes: str) -> "Element":
    """Return an element with text, or with one child for each key of a mapping."""
    from xml.etree.ElementTree import Element

    made = Element(tag, attributes)
    if isinstance(content, dict):
        made.extend(element(key, value) for key, value in content.items())
    elif content is not None:
        made.text = str(content)
    return made


def number(text: str | None) -> float | None:
    """Return a number written as text; `None` for anything else."""
    try:
        return float(text) if text else None
    except ValueError:
        return None
