"""Checks of whole images: focus, pixel aspect ratio, scale."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bloodfilm.audit.image_statistics import Survey
from bloodfilm.core.findings import Finding
from bloodfilm.core.text import below
from bloodfilm.imaging.scale import pool
from bloodfilm.imaging.sharpness import SHARP_ENOUGH

ENOUGH_RED_CELLS = 30
MAX_LOG_DEVIATION = 0.06  # beyond this a pooled aspect ratio is not the stated one


def blurred(survey: Survey) -> Iterator[Finding]:
    """Fields whose canonical view is less sharp than any sharp field measured so far."""
    for number, field in survey:
        if field.sharpness is not None and field.sharpness < SHARP_ENOUGH:
            blur = 1 - field.sharpness / SHARP_ENOUGH
            yield Finding(
                "blurred",
                "warning",
                f"out of focus: sharpness {below(field.sharpness)} is below {SHARP_ENOUGH:g}",
                {"sharpness": round(field.sharpness, 2), "sharp_enough": SHARP_ENOUGH},
                file=survey.table.rows[number].path,
                advice="do not judge chromatin or nucleoli in it",
                confidence=float(np.clip(0.5 + 0.5 * blur, 0.5, 0.95)),
            )


def aspect_ratio(survey: Survey) -> Iterator[Finding]:
    """Domains whose round cells are not round, or not as stated, or not of one scale."""
    domains: dict[str, list[int]] = {}
    for number, _ in survey:
        domains.setdefault(survey.table.rows[number].domain.name, []).append(number)
    for name, numbers in sorted(domains.items()):
        yield from _aspect_ratio_of(survey, name, numbers)


def _aspect_ratio_of(survey: Survey, name: str, numbers: list[int]) -> Iterator[Finding]:
    file = survey.table.name
    pooled = pool([survey.fields[n].measurement for n in numbers])
    if not pooled.groups or pooled.groups[0].cells < ENOUGH_RED_CELLS:
        message = f"{name}: too few whole red cells to measure scale and pixel aspect ratio"
        missing = {"check": "pixel-aspect-ratio", "domain": name}
        yield Finding("not-checked", "info", message, missing, file=file, advice="state them")
        return
    if len(pooled.groups) > 1:
        yield Finding(
            "mixed-scales",
            "warning",
            f"{name}: {pooled.note}",
            {"domain": name, "scales": len(pooled.groups)},
            file=file,
            advice="give each microscope its own subset, or state scale and aspect ratio by field",
            confidence=0.7,
        )
    measured = pooled.groups[0].pixel_aspect_ratio
    stated = survey.table.rows[numbers[0]].domain.pixel_aspect_ratio
    cells = f"{pooled.groups[0].cells} red cells of {name} are {measured:.3f} times as wide as high"
    data: dict[str, Any] = {"domain": name, "measured": round(float(measured), 4), "stated": stated}
    if stated is not None and abs(np.log(measured / stated)) > MAX_LOG_DEVIATION:
        message = f"{cells}, {stated:.3f} is stated"
        yield Finding(
            "pixel-aspect-ratio",
            "warning",
            message,
            data,
            file=file,
            advice="correct it",
            confidence=0.8,
        )
    elif abs(np.log(measured)) > MAX_LOG_DEVIATION:
        note = "as stated" if stated is not None else "pixels are not square"
        yield Finding(
            "pixel-aspect-ratio",
            "info",
            f"{cells}: {note}",
            data,
            file=file,
            advice="keep it in the domain's record; analyse through the canonical view",
            confidence=0.9,
        )
