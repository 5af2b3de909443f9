"""Which fields of a case do not count: copies, planes of a focus series, blurred and empty ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bloodfilm.cases.landmarks import FieldLandmarks
from bloodfilm.cases.layout import Layout, overlap_um2
from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Floats
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue, codes
from bloodfilm.core.results import FieldResult
from bloodfilm.imaging.picture_key import KnownAppearances, Symmetry
from bloodfilm.inference.repeats import (
    COPY_SHARPNESS,
    SAME_CELLS,
    cells_in_place,
    relative_boxes,
)

SAME_PLACE_SHARE = 0.9
"""Fields of which this share is common glass, of both, show one place."""
COPY_LIKENESS = 0.985
PLANE_DIFFERENT = 28
"""Signs in which the looks of two focal planes, a little shifted, may differ: 20 were seen."""


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


@dataclass(frozen=True, eq=False)
class Repeat:
    """A field that shows the picture of another one.

    Attributes:
        original: place of the field that counts.
        matrix: from the original's plane to this one's (2x3), um.
        issue: why this one does not count.
    """

    original: int
    matrix: Floats
    issue: Issue


def copies(results: Sequence[FieldResult]) -> dict[int, Repeat]:
    """Return the fields that are an earlier picture of the case, by place.

    Copies in another file format, compressed or resized anew, turned or mirrored, were recognised
    when the files were analysed; those of the same bytes are here, too, whatever was analysed
    before them.
    """
    first: dict[str, int] = {}
    found: dict[int, Repeat] = {}
    paths: dict[str, int] = {}
    for place, result in enumerate(results):
        paths.setdefault(result.path, place)
        known = [i for i in result.issues if i.code == issue_codes.DUPLICATE_IMAGE]
        for one in known:
            original = paths.get(str(one.data.get("path")), place)
            if original != place:
                turned = Symmetry(*map(bool, one.data.get("symmetry", ())))
                found[place] = Repeat(original, _map(results[original], turned), one)
        checksum = result.image.sha256
        if checksum and first.setdefault(checksum, place) != place and place not in found:
            original = first[checksum]
            found[place] = _repeat(results, original, "the same file as {}")
    return found


def same_pictures(
    results: Sequence[FieldResult], left_out: Collection[int], classified: str
) -> dict[int, Repeat]:
    """Return the fields that look like a sharper one, with the same cells, by place.

    These are planes of a focus series, however blurred, in which fewer cells may be found.

    Args:
        results: of all fields of the case.
        left_out: places that are set aside already.
        classified: the object type whose cells are compared.
    """
    looks = KnownAppearances()
    kept: list[int] = []
    found = {}
    order = sorted(
        (k for k in range(len(results)) if k not in left_out),
        key=lambda k: (-_detail(results[k]), k),
    )
    for place in order:
        image = results[place].image
        cells = relative_boxes(results[place], classified)
        size = image.width, image.height
        for number, turned in looks.find(image.appearance, *size, PLANE_DIFFERENT):
            other = kept[number]
            if _share_cells(turned.boxes(relative_boxes(results[other], classified)), cells):
                path = results[other].path
                message = f"the same place as {path}, which is sharper"
                why = issue(issue_codes.SAME_PLACE, message, path=path)
                found[place] = Repeat(other, _map(results[other], turned), why)
                break
        else:
            kept.append(place)
            looks.add(image.appearance, image.width, image.height)
    return found


def _share_cells(one: Floats, two: Floats) -> bool:
    """Whether most cells (n, 4) of the field that shows fewer lie where the other has some."""
    fewer = min(len(one), len(two))
    return fewer > 0 and cells_in_place(one, two) >= SAME_CELLS * fewer


def _detail(result: FieldResult) -> float:
    """Return how much a picture shows: a small copy may be as sharp, and shows less."""
    return (result.view.sharpness or 0.0) * result.image.width * result.image.height


def _map(original: FieldResult, turned: Symmetry) -> Floats:
    """Return the map from a field's plane to that of the field turned, um."""
    image, view = original.image, original.view
    return turned.map_of(image.width * view.um_per_px_x, image.height * view.um_per_px_y)


def pixel_copies(
    results: Sequence[FieldResult], landmarks: Mapping[int, FieldLandmarks]
) -> dict[int, Repeat]:
    """Return the fields whose pixels are those of an earlier one, by place."""
    first: dict[str, int] = {}
    found = {}
    for place, marks in sorted(landmarks.items()):
        if first.setdefault(marks.digest, place) != place:
            original = first[marks.digest]
            found[place] = _repeat(results, original, "the same pixels as {}")
    return found


def _repeat(results: Sequence[FieldResult], original: int, what: str) -> Repeat:
    path = results[original].path
    why = issue(issue_codes.DUPLICATE_IMAGE, what.format(path), path=path)
    return Repeat(original, np.eye(2, 3), why)


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
    order = sorted(usable, key=lambda p: (-_detail(results[p]), p))
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
