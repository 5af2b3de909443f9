"""Checks of the pictures as pictures: focus, squeeze, scale."""

from collections.abc import Iterator

import numpy as np

from bloodfilm.audit.finding import Finding
from bloodfilm.audit.image_statistics import Survey, in_view
from bloodfilm.imaging.scale import pool
from bloodfilm.inference.analyzer import SHARP_ENOUGH

ENOUGH_RED_CELLS = 30
OFF = 0.06  # log: beyond this a pooled squeeze is not the stated one


def blurred(found: Survey) -> Iterator[Finding]:
    """Fields whose canonical view is less sharp than any sharp field measured so far."""
    for number, look in in_view(found):
        if look.sharpness is not None and look.sharpness < SHARP_ENOUGH:
            what = f"out of focus: sharpness {look.sharpness:.1f} is below {SHARP_ENOUGH:g}"
            sure = float(np.clip(0.5 + 0.5 * (1 - look.sharpness / SHARP_ENOUGH), 0.5, 0.95))
            hint = "do not judge chromatin or nucleoli in it"
            yield Finding("blurred", "warning", found.table.rows[number].path, what, hint, sure)


def squeezed(found: Survey) -> Iterator[Finding]:
    """Domains whose round cells are not round, or not as stated, or not of one scale."""
    domains: dict[str, list[int]] = {}
    for number, _ in in_view(found):
        domains.setdefault(found.table.rows[number].domain.name, []).append(number)
    for name, numbers in sorted(domains.items()):
        pooled = pool([found.looks[n].measurement for n in numbers])
        if not pooled.groups or pooled.groups[0].cells < ENOUGH_RED_CELLS:
            what = f"{name}: too few whole red cells to measure scale and squeeze"
            yield Finding("not checked", "info", found.table.name, what, "state them")
            continue
        if len(pooled.groups) > 1:
            what = f"{name}: {pooled.note}"
            hint = "give each microscope its own subset, or state scale and squeeze by field"
            yield Finding("mixed scales", "warning", found.table.name, what, hint, 0.7)
        seen = pooled.groups[0].squeeze
        stated = found.table.rows[numbers[0]].domain.squeeze
        cells = f"{pooled.groups[0].cells} red cells of {name} are {seen:.3f} times as wide as high"
        if stated is not None and abs(np.log(seen / stated)) > OFF:
            what = f"{cells}, {stated:.3f} is stated"
            yield Finding("squeeze", "warning", found.table.name, what, "correct it", 0.8)
        elif abs(np.log(seen)) > OFF:
            note = "as stated" if stated is not None else "the pictures are squeezed"
            hint = "keep it in the domain's record; analyse through the canonical view"
            yield Finding("squeeze", "info", found.table.name, f"{cells}: {note}", hint, 0.9)
