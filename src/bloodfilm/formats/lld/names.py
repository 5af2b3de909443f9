"""What LLD's file and folder names say: patient, field, photograph, diagnosis, subset."""

import re
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core import Domain

_NAME = re.compile(
    r"(?P<patient>\d+)_(?P<field>\d+)(?:_(?P<photograph>\d+))?_(?P<power>100|400|1000)"
    r"(?:_(?P<diagnosis>[A-Z]+))?"
)
_SUBSET = re.compile(r"(?P<microscope>[HL])_(?P<power>10|40|100)X_(?P<camera>C[12])", re.IGNORECASE)
# Width / height of a red cell, and micrometres per pixel along y, measured on real fields.
_MEASURED: dict[tuple[str, int, str], tuple[float, float | None]] = {
    ("H", 100, "C1"): (0.60, None),
    ("H", 40, "C2"): (0.562, 0.144),
}


@dataclass(frozen=True, slots=True)
class NameParts:
    """The parts of a file name; `None` where the name has no such part."""

    patient: str
    field: str
    photograph: str | None
    magnification: float
    diagnosis: str | None

    @property
    def meta(self) -> dict[str, str]:
        """Field and photograph number, for `Field.meta`."""
        photograph = {} if self.photograph is None else {"photograph": self.photograph}
        return {"field": self.field} | photograph


def parse_name(name: str) -> NameParts | None:
    """Read an image's name; stray characters (one real name holds a back-tick) are passed over."""
    match = _NAME.fullmatch(re.sub(r"[^0-9A-Za-z_]", "", Path(name).stem))
    if match is None:
        return None
    return NameParts(
        match["patient"],
        match["field"],
        match["photograph"],
        int(match["power"]) / 10,
        match["diagnosis"],
    )


def parse_subset(name: str) -> Domain | None:
    """Read a subset's folder name (`H_40X_C2`, `L_100x_C1`) as a domain."""
    match = _SUBSET.fullmatch(name)
    if match is None:
        return None
    key = (match["microscope"].upper(), int(match["power"]), match["camera"].upper())
    aspect, um_per_px = _MEASURED.get(key, (None, None))
    return Domain(key[0], key[1], key[2], aspect, um_per_px)
