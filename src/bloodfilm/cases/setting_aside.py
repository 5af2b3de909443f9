"""Which fields of a case do not count: copies, planes of a focus series, blurred and empty ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from bloodfilm.cases.landmarks import FieldLandmarks
from bloodfilm.cases.layout import Layout, overlap_um2
from bloodfilm.core import issue_codes
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue, codes
from bloodfilm.core.results import FieldResult

SAME_PLACE_SHARE = 0.9
"""Fields of which this share is common glass, of both, show one place."""
COPY_LIKENESS = 0.985
COPY_SHARPNESS = 1.3
"""A copy is as sharp as its original, within this factor."""


def unusable(results: Sequence[FieldResult]) -> dict[int, Issue]:
    """Return the fields that do not count for what they show themselves, by place.

    A field whose scale is assumed, that shows no film, or is empty never counts; a blurred one
    counts only if all others are blurred, too.
    """
    found: dict[int, Issue] = {}
    # A copy is judged within its case: another case may hold its original.
    uncountable = issue_codes.UNCOUNTABLE - {issue_codes.DUPLICATE_IMAGE}
    reasons = (*sorted(uncountable), issue_codes.NO_CELLS)
    for place, result in enumerate(results):
        for one in result.issues:
            if one.code in reasons:
                found.setdefault(place, one)
    blurred = {
        place: next(one for one in result.issues if one.code == issue_codes.LOW_SHARPNESS)
        for place, result in enumerate(results)
        if place not in found and issue_codes.LOW_SHARPNESS in codes(result.issues)
    }
    if len(blurred) + len(found) < len(results):
        found |= blurred
    return found


def copies(results: Sequence[FieldResult]) -> dict[int, tuple[int, Issue]]:
    """Return the fields that are an earlier picture of the case: its place, and the issue.

    Copies in another file format, or compressed or resized anew, were recognised when the files
    were analysed; those of the same bytes are here, too, whatever was analysed before them.
    """
    first: dict[str, int] = {}
    found: dict[int, tuple[int, Issue]] = {}
    paths: dict[str, int] = {}
    for place, result in enumerate(results):
        paths.setdefault(result.path, place)
        known = [i for i in result.issues if i.code == issue_codes.DUPLICATE_IMAGE]
        for one in known:
            original = paths.get(str(one.data.get("path")), place)
            if original != place:
                found[place] = original, one
        checksum = result.image.sha256
        if checksum and first.setdefault(checksum, place) != place and place not in found:
            original = first[checksum]
            found[place] = original, _copy(results[original], "the same file as {}")
    return found


def pixel_copies(
    results: Sequence[FieldResult], landmarks: Mapping[int, FieldLandmarks]
) -> dict[int, tuple[int, Issue]]:
    """Return the fields whose pixels are those of an earlier one: its place, and the issue."""
    first: dict[str, int] = {}
    found = {}
    for place, marks in sorted(landmarks.items()):
        if first.setdefault(marks.digest, place) != place:
            original = first[marks.digest]
            found[place] = original, _copy(results[original], "the same pixels as {}")
    return found


def _copy(original: FieldResult, what: str) -> Issue:
    path = original.path
    return issue(issue_codes.DUPLICATE_IMAGE, what.format(path), path=path)


def same_places(
    results: Sequence[FieldResult],
    usable: Sequence[int],
    landmarks: Mapping[int, FieldLandmarks],
    layout: Layout,
) -> dict[int, Issue]:
    """Return the fields that show the place of a sharper one, by place.

    Each field is compared with the sharpest ones only, not with its neighbours: fields that the
    stage moved by a little each are not one place.

    Args:
        results: of all fields of the case.
        usable: places of the fields that the layout has, in its order.
        landmarks: of those fields, by place.
        layout: where they lie.
    """
    at = {place: number for number, place in enumerate(usable)}
    order = sorted(usable, key=lambda p: (-(results[p].view.sharpness or 0.0), p))
    sharpest: dict[int, list[int]] = {}
    found = {}
    for place in order:
        part = layout.parts[at[place]]
        for other in sharpest.setdefault(part, []):
            matrix = layout.between(at[place], at[other])
            if _common_share(matrix, landmarks[place], landmarks[other]) >= SAME_PLACE_SHARE:
                found[place] = _again(results, landmarks, place, other)
                break
        else:
            sharpest[part].append(place)
    return found


def _common_share(matrix: object, one: FieldLandmarks, other: FieldLandmarks) -> float:
    common = overlap_um2(np.asarray(matrix, dtype=np.float64), one.size_um, other.size_um)
    return common / max(float(np.prod(one.size_um)), float(np.prod(other.size_um)))


def _again(
    results: Sequence[FieldResult], landmarks: Mapping[int, FieldLandmarks], place: int, other: int
) -> Issue:
    """Return why a field is set aside for a sharper one of the same place."""
    path = results[other].path
    sharp = [max(results[k].view.sharpness or 0.0, 1e-6) for k in (other, place)]
    likeness = float(landmarks[place].thumbnail @ landmarks[other].thumbnail)
    if likeness >= COPY_LIKENESS and sharp[0] <= COPY_SHARPNESS * sharp[1]:
        return issue(issue_codes.COPIED_FIELD, f"a copy of {path}, stored otherwise", path=path)
    message = f"the same place as {path}, which is sharper"
    return issue(issue_codes.SAME_PLACE, message, path=path)
