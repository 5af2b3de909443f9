"""Draw fields, single cells, pairs and cases: the renderer's front door."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.field import Cell
from bloodfilm.imaging.canonical import CROP_SIZE, CROP_UM
from bloodfilm.synthetic.ground_truth import GroundTruth
from bloodfilm.synthetic.optics import Image, look_at, photograph
from bloodfilm.synthetic.profiles import AcquisitionProfile, get_profile
from bloodfilm.synthetic.rasterize_artefacts import ARTEFACTS
from bloodfilm.synthetic.scene import MARGIN_UM, Scene, SceneSpec, build_scene


def _sized(look: str | AcquisitionProfile, size: tuple[int, int] | None) -> AcquisitionProfile:
    found = get_profile(look)
    return found if size is None else replace(found, width=size[0], height=size[1])


def _extent(look: AcquisitionProfile) -> tuple[float, float]:
    return look.width * look.um_x, look.height * look.um_per_px


def render_field(
    look: str | AcquisitionProfile = "pbc-like",
    recipe: SceneSpec | None = None,
    *,
    seed: int = 0,
    size: tuple[int, int] | None = None,
) -> tuple[Image, GroundTruth]:
    """Draw one field of a film.

    `look` is a name in `PROFILES` or an `AcquisitionProfile`; `recipe` says what is on the glass;
    `size` (width, height) replaces the profile's. Returns the image, uint8 RGB (H, W, 3),
    and its exact truth.
    Every white cell asked for has its centre in the picture; the edge may cut it.
    """
    look = _sized(look, size)
    width, height = _extent(look)
    inside = (MARGIN_UM, MARGIN_UM, width, height)
    filled = (recipe or SceneSpec()).filled(look)
    scene = build_scene(width + 2 * MARGIN_UM, height + 2 * MARGIN_UM, filled, seed, inside)
    view = look_at(look, (scene.width / 2, scene.height / 2))
    return photograph(scene, look, view, seed)


def render_cell(
    label: str,
    attributes: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
    look: str | AcquisitionProfile = "pbc-like",
    size: int = CROP_SIZE,
    um_per_px: float | None = CROP_UM,
) -> tuple[Image, GroundTruth]:
    """Draw one centred white cell, or artefact, among red cells, `size` pixels square.

    `label` is a white cell's class or a key of `ARTEFACTS`. The default is the canonical crop;
    `um_per_px=None` keeps the profile's own scale. The first of `truth.white`, or of
    `truth.of_kind("artefact")`, is the cell; attributes not given are drawn as its class has them.
    """
    look = _sized(look, (size, size))
    if um_per_px is not None:
        look = replace(look, um_per_px=um_per_px)
    width, height = _extent(look)
    if label in ARTEFACTS:
        recipe = SceneSpec(whites=0, artefacts={label: 1}).filled(look)
    else:
        recipe = SceneSpec(whites=[Cell(None, label, dict(attributes or {}))]).filled(look)
    wide, high = width + 10.0, height + 10.0
    scene = build_scene(wide, high, recipe, seed, (wide / 2, high / 2, 0.0, 0.0))
    return photograph(scene, look, look_at(look, (wide / 2, high / 2)), seed)


@dataclass(frozen=True)
class RegisteredPair:
    """One scene photographed twice.

    Attributes:
        first, second: (image, truth) each.
        matrix: 2x3, from the first picture's pixels to the second's.
    """

    first: tuple[Image, GroundTruth]
    second: tuple[Image, GroundTruth]
    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class ViewTransform:
    """How the second camera stands to the first: turn (degrees), shift (um), mirror."""

    degrees: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    mirror: bool = False


def render_pair(
    first: str | AcquisitionProfile = "lld100x-like",
    second: str | AcquisitionProfile = "lld40x-like",
    *,
    recipe: SceneSpec | None = None,
    placement: ViewTransform | None = None,
    seed: int = 0,
) -> RegisteredPair:
    """Photograph one scene in two domains; a cell keeps its `id` and texture in both."""
    looks = get_profile(first), get_profile(second)
    placement = placement or ViewTransform()
    reach = [float(np.hypot(*_extent(look))) for look in looks]
    side = max(reach[0], reach[1] + 2 * max(abs(v) for v in placement.shift)) + 2 * MARGIN_UM
    middle = (side / 2, side / 2)
    width, height = _extent(looks[0])
    inside = (side / 2 - width / 2, side / 2 - height / 2, width, height)
    scene = build_scene(side, side, (recipe or SceneSpec()).filled(looks[0]), seed, inside)
    where = middle[0] + placement.shift[0], middle[1] + placement.shift[1]
    views = (
        look_at(looks[0], middle),
        look_at(looks[1], where, placement.degrees, placement.mirror),
    )
    pictures = [photograph(scene, looks[k], views[k], seed + k) for k in (0, 1)]
    return RegisteredPair(
        pictures[0], pictures[1], transform_between(pictures[0][1], pictures[1][1])
    )


def transform_between(first: GroundTruth, second: GroundTruth) -> NDArray[np.float64]:
    """The 2x3 matrix from one picture's pixels to another's, of the same scene."""
    a, b = (np.vstack([t.matrix, [0.0, 0.0, 1.0]]) for t in (first, second))
    return np.asarray((b @ np.linalg.inv(a))[:2], dtype=np.float64)


def render_case(
    look: str | AcquisitionProfile = "lld40x-like",
    fields: int = 4,
    *,
    recipe: SceneSpec | None = None,
    overlap: float = 0.3,
    turned: float = 0.1,
    seed: int = 0,
) -> list[tuple[Image, GroundTruth]]:
    """Photograph one large scene in several fields that overlap.

    Neighbours along a wandering path share about `overlap` of their width; a share `turned` of
    them is rotated by 180 degrees, as happens in LLD. One physical cell has the same `id` in every
    field; the recipe's white cells are per field.
    """
    look = get_profile(look)
    rng = np.random.default_rng([seed, 3])
    scene, centres = _case_scene(look, fields, recipe or SceneSpec(), overlap, rng)
    pictures = []
    for index, centre in enumerate(centres):
        degrees = 180.0 if index and rng.random() < turned else 0.0
        pictures.append(photograph(scene, look, look_at(look, centre, degrees), seed + index))
    return pictures


def _case_scene(
    look: AcquisitionProfile,
    fields: int,
    recipe: SceneSpec,
    overlap: float,
    rng: np.random.Generator,
) -> tuple[Scene, list[tuple[float, float]]]:
    width, height = _extent(look)
    columns = int(np.ceil(np.sqrt(fields)))
    rows = int(np.ceil(fields / columns))
    step = (1 - overlap) * width, (1 - overlap) * height
    wide = width + (columns - 1) * step[0] + 2 * MARGIN_UM
    high = height + (rows - 1) * step[1] + 2 * MARGIN_UM
    if isinstance(recipe.whites, int):
        share = wide * high / (width * height)
        recipe = replace(recipe, whites=round(recipe.whites * share))
    seed = int(rng.integers(2**31))
    scene = build_scene(wide, high, recipe.filled(look), seed)
    start = np.array([MARGIN_UM + width / 2, MARGIN_UM + height / 2])
    centres = []
    for index in range(fields):
        row, column = divmod(index, columns)
        jitter = rng.uniform(-0.04, 0.04, 2) * [width, height]
        x, y = start + np.array([column * step[0], row * step[1]]) + jitter
        centres.append((float(x), float(y)))
    return scene, centres
