"""Pig WBC (CC0): 557 phone photographs through the eyepiece, every white cell boxed."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Dataset, Domain
from bloodfilm.formats import yolo
from bloodfilm.formats.shared.context import ReadOptions
from bloodfilm.formats.shared.paths import need_folder

LICENCE = "CC0"
# 0.5 to 0.6 um per px, estimated from the size of the cells.
DOMAIN = Domain("Pig WBC", 100, "phone at the eyepiece", pixel_aspect_ratio=1.0, um_per_px=0.55)
_NAME = re.compile(r"[0-9a-f]{12}")
_LOOKED_AT = 20


def recognises(path: Path) -> bool:
    """Whether it is a YOLO folder of the one class WBC whose images are named by checksums."""
    train = path / "images" / "train"
    if not (path / "data.yaml").is_file() or not train.is_dir():
        return False
    names = [file.stem for file, _ in zip(train.iterdir(), range(_LOOKED_AT), strict=False)]
    return bool(names) and all(_NAME.fullmatch(name) for name in names)


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read the pig films: fields in which every white cell is boxed, round on black."""
    boxes = yolo.read(need_folder(Path(path)), **options)
    fields = tuple(replace(field, domain=DOMAIN) for field in boxes)
    return replace(boxes, name="Pig WBC", fields=fields, licence=LICENCE)
