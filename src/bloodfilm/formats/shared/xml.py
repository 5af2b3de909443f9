"""XML that came from anywhere: parsed without declarations, and made from plain data."""

import codecs
import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bloodfilm.core import DataError
from bloodfilm.core import dataset_codes as codes
from bloodfilm.formats.shared.context import ReadContext
from bloodfilm.formats.shared.parsing import decode, read_bytes

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']""")


def parse(reading: ReadContext, file: Path, root: str, most: int) -> "Element | None":
    """Return the XML tree, `None` (reported) if it is no text, ill-formed, or has another root.

    Raises:
        DataError: if it declares anything (`refuse_declarations`), or holds more than `most`
            characters.
    """
    from xml.etree import ElementTree
    from xml.parsers.expat import ExpatError

    try:
        text = xml_text(read_bytes(file), file)
    except DataError as error:
        reading.report(
            codes.UNREADABLE_FILE, file, "", f"{str(error).removeprefix(f'{file}: ')}; left out"
        )
        return None
    if len(text) > most:
        raise DataError(
            f"{file}: {len(text):,} characters, more than the {most:,} that are read; split it"
        )
    try:
        refuse_declarations(text, file)
        tree = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ExpatError, RecursionError, ValueError) as error:
        reading.report(
            codes.UNREADABLE_FILE,
            file,
            "",
            f"ill-formed XML ({error}), left out",
            "export it again",
        )
        return None
    if tree.tag != root:
        reading.report(
            codes.UNREADABLE_FILE, file, "", f"holds <{tree.tag}>, not <{root}>, left out"
        )
        return None
    return tree


def refuse_declarations(text: str, file: Path) -> None:
    """Raise if a document's type declares anything: entities, attributes, elements, notations.

    Entities and default attributes make a small file a huge tree, and external ones read other
    files. They stand in the document type, which is all before the root element: expat reports
    them as it parses, and parsing ends at the root. A document type that only names a file is
    harmless: it is never opened.

    Raises:
        DataError: for a declaration, and for an entity reference before the root.
        xml.parsers.expat.ExpatError: if the text is ill-formed before its root.
    """
    from xml.parsers import expat

    def refuse(*_: object) -> NoReturn:
        raise DataError(
            f"{file}: line {parser.CurrentLineNumber}: its document type declares entities "
            "or attributes, which no annotation does; remove its <!DOCTYPE ... >"
        )

    def end(*_: object) -> NoReturn:
        raise _RootReachedError

    parser = expat.ParserCreate()
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    for handler in _DECLARATIONS:
        setattr(parser, handler, refuse)
    parser.StartElementHandler = end
    with contextlib.suppress(_RootReachedError):
        parser.Parse(text, True)


_DECLARATIONS = (
    "EntityDeclHandler",
    "UnparsedEntityDeclHandler",
    "NotationDeclHandler",
    "ElementDeclHandler",
    "AttlistDeclHandler",
    "ExternalEntityRefHandler",
    "SkippedEntityHandler",
)


class _RootReachedError(Exception):
    """The root element begins: everything that can be declared has been."""


def xml_text(data: bytes, file: Path) -> str:
    """Return XML without its declaration, decoded as the declaration says, else as UTF-8 or UTF-16.

    Raises:
        DataError: if the encoding is not known, or the bytes are not of it.
    """
    declared = _ENCODING.match(data.removeprefix(codecs.BOM_UTF8))
    name = declared[1].decode("ascii") if declared else ""
    if not name or name.lower().replace("_", "-").startswith("utf-16"):
        text = decode(data, file)  # no encoding, or one that its first bytes say themselves
    else:
        try:
            text = data.removeprefix(codecs.BOM_UTF8).decode(name)
        except LookupError:
            raise DataError(
                f"{file}: declares the encoding {name!r}, which is not known; save it as UTF-8"
            ) from None
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file}: byte {error.start} is not {name}, which the file declares; save it as "
                "UTF-8, with that declared"
            ) from None
    return text.partition("?>")[2] if text.lstrip()[:5] == "<?xml" else text


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
