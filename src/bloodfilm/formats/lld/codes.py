"""LLD's class ids and attribute codes, as JSON and text labels write them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bloodfilm.core import LLD_SCHEMA
from bloodfilm.formats.shared.class_names import IGNORE_NAMES
from bloodfilm.formats.shared.parsing import to_int

CLASSES: Mapping[int, str] = dict(
    enumerate(
        (
            "none",
            "myeloblast",
            "lymphoblast",
            "neutrophil",
            "atypical lymphocyte",
            "promonocyte",
            "monoblast",
            "lymphocyte",
            "myelocyte",
            "abnormal promyelocyte",
            "monocyte",
            "metamyelocyte",
            "eosinophil",
            "basophil",
            "none",  # some files give `none` the id 14
        )
    )
)

JSON_KEYS: Mapping[str, tuple[str, ...]] = {
    "cell_size": ("cell_size",),
    "nuclear_chromatin": ("nuclear_chromatio", "nuclear_chromatin"),  # sic
    "nuclear_shape": ("nuclear_shape",),
    "nucleolus": ("nucleolus", "nucleus"),
    "cytoplasm": ("cytoplasm",),
    "cytoplasmic_basophilia": ("cytoplasmic_basophilia",),
    "cytoplasmic_vacuoles": ("cytoplasmic_vacuoles",),
}
NOT_APPLICABLE_JSON = 4
NOT_APPLICABLE_TEXT = 2
UNKNOWN_SIZE_TEXT = 4  # 2 would read as large


@dataclass(frozen=True, slots=True)
class StrayCode:
    """A code that stands for no value of an attribute."""

    attribute: str
    code: Any

    def __str__(self) -> str:
        return f"{self.attribute} has code {self.code!r}"


Decoded = tuple[dict[str, str], list[StrayCode]]
"""Attributes that are known, and the codes of the others."""


def is_none(name: str) -> bool:
    """Whether a class name is one of the spellings of LLD's `none`."""
    return name.strip().lower() in IGNORE_NAMES


def attributes_from_json(annotation: Mapping[str, Any], none: bool) -> Decoded:
    """Decode the attributes of one JSON annotation; 4 is "not applicable"."""
    codes = {
        name: next((annotation[key] for key in keys if key in annotation), None)
        for name, keys in JSON_KEYS.items()
    }
    return _decode(codes, lambda _: {NOT_APPLICABLE_JSON}, none)


def attributes_from_text(columns: Sequence[float], none: bool) -> Decoded:
    """Decode seven columns, or six (without cell size); 2 is "not applicable".

    For the three-valued cell size, 2 is a level unless the class is `none`.
    """
    names = LLD_SCHEMA.names[-len(columns) :] if columns else ()
    codes = dict(zip(names, columns, strict=True))
    return _decode(codes, not_applicable_text, none)


def not_applicable_text(name: str) -> set[int]:
    """Return the codes of text labels that leave an attribute unknown."""
    size = {UNKNOWN_SIZE_TEXT} if name == "cell_size" else set()
    return {NOT_APPLICABLE_TEXT} | size


def _decode(
    codes: Mapping[str, Any], not_applicable: Callable[[str], set[int]], none: bool
) -> Decoded:
    known: dict[str, str] = {}
    stray: list[StrayCode] = []
    for name, raw in codes.items():
        if raw is None:
            continue
        code = to_int(raw)
        values = LLD_SCHEMA[name].values
        level = code is not None and 0 <= code < len(values)
        if code in not_applicable(name) and (none or not level):
            continue
        if code is None or not level:
            stray.append(StrayCode(name, raw))
        else:
            known[name] = values[code]
    return known, stray


def json_code(name: str, value: str | None) -> int:
    """Return the JSON code of an attribute's value; unknown is written as not applicable."""
    return NOT_APPLICABLE_JSON if value is None else LLD_SCHEMA[name].index(value)


def text_code(name: str, value: str | None) -> int:
    """Return the text code of an attribute's value; unknown is written as not applicable."""
    if value is not None:
        return LLD_SCHEMA[name].index(value)
    return UNKNOWN_SIZE_TEXT if name == "cell_size" else NOT_APPLICABLE_TEXT
