"""Whether the fields of a case look like those of one camera and magnification."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bloodfilm.core import issue_codes
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.results import FieldResult
from bloodfilm.core.text import plural

LEAST_FIELDS = 2
"""Fields of a size and a scale from which these are a camera's, not those of one picture."""
MOST_OTHERS = 0.2
"""Share of fields of rarer sizes and scales up to which the common ones are cameras': pictures that
a person has cut out have a size each."""
OTHER_SCALE = 1.4
"""Scales further apart than by this factor are of two magnifications."""


@dataclass(frozen=True)
class Setting:
    """What a camera at one magnification gives.

    Attributes:
        size: width and height of its fields, the larger first, px.
        um_per_px: median of their measured scales; `None` if none was measured.
        fields: how many there are.
    """

    size: tuple[int, int]
    um_per_px: float | None
    fields: int

    def __str__(self) -> str:
        """Return size and scale as a person reads them."""
        scale = "" if self.um_per_px is None else f" at {self.um_per_px:.2g} um a pixel"
        return f"{self.size[0]} x {self.size[1]} px{scale}: {self.fields}"


def settings(results: Sequence[FieldResult]) -> list[Setting]:
    """Return the sizes and scales of fields, the most frequent first."""
    by_size: dict[tuple[int, int], list[float | None]] = defaultdict(list)
    for result in results:
        view = result.view
        known = view.scale_source != "assumed"
        size = max(view.width, view.height), min(view.width, view.height)
        by_size[size].append(math.sqrt(view.um_per_px_x * view.um_per_px_y) if known else None)
    found = [s for size, scales in by_size.items() for s in _of_size(size, scales)]
    return sorted(found, key=lambda s: (-s.fields, s.size, s.um_per_px or 0))


def _of_size(size: tuple[int, int], scales: Sequence[float | None]) -> list[Setting]:
    """Split fields of one size where their scales are far apart; unmeasured ones join the first."""
    known = sorted(s for s in scales if s is not None)
    groups: list[list[float]] = [[]]
    for scale in known:
        if groups[-1] and scale > groups[-1][-1] * OTHER_SCALE:
            groups.append([])
        groups[-1].append(scale)
    groups.sort(key=len, reverse=True)
    unknown = len(scales) - len(known)
    return [
        Setting(size, g[len(g) // 2] if g else None, len(g) + (unknown if i == 0 else 0))
        for i, g in enumerate(groups)
    ]


def several_cameras(results: Sequence[FieldResult]) -> Issue | None:
    """Return an issue if a case's fields are of several sizes or scales; `None` if of one."""
    common = [s for s in settings(results) if s.fields >= LEAST_FIELDS]
    others = len(results) - sum(s.fields for s in common)
    if len(common) < 2 or others > MOST_OTHERS * len(results):
        return None
    message = (
        f"its fields are those of {plural(len(common), 'camera setting')} "
        f"({'; '.join(map(str, common))}); if they are of several patients, give each a folder, or "
        "a table of images and patients with --cases"
    )
    facts = [{"size": list(s.size), "um_per_px": s.um_per_px, "fields": s.fields} for s in common]
    return issue(issue_codes.SEVERAL_CAMERAS, message, settings=facts)
