"""Render fields, single cells, registered pairs and cases."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Image
from bloodfilm.core.field import Cell
from bloodfilm.imaging.canonical import CROP_SIZE, CROP_UM
from bloodfilm.synthetic.ground_truth import GroundTruth
from bloodfilm.synthetic.optics import CameraPose, camera_pose, render_view, transmitted_light
from bloodfilm.synthetic.profiles import AcquisitionProfile, get_profile
from bloodfilm.synthetic.rasterize_artefacts import ARTEFACTS
from bloodfilm.synthetic.scene import MARGIN_UM, Scene, SceneSpec, build_scene


def _sized(profile: str | AcquisitionProfile, size: tuple[int, int] | None) -> AcquisitionProfile:
    found = get_profile(profile)
    return found if size is None else replace(found, width=size[0], height=size[1])


def _extent(profile: AcquisitionProfile) -> tuple[float, float]:
    return profile.width * profile.um_x, profile.height * profile.um_per_px


def render_field(
    profile: str | AcquisitionProfile = "pbc-like",
    spec: SceneSpec | None = None,
    *,
    seed: int = 0,
    size: tuple[int, int] | None = None,
) -> tuple[Image, GroundTruth]:
    """Draw one field of a film.

    `profile` is a name in `PROFILES` or an `AcquisitionProfile`; `spec` lists what is on the glass;
    `size` (width, height) replaces the profile's. Returns the image, uint8 RGB (H, W, 3),
    and its ground truth.
    Every white cell has its centre in the image; the edge may cut it.
    """
    profile = _sized(profile, size)
    width, height = _extent(profile)
    inside = (MARGIN_UM, MARGIN_UM, width, height)
    filled = (spec or SceneSpec()).filled(profile)
    scene = build_scene(width + 2 * MARGIN_UM, height + 2 * MARGIN_UM, filled, seed, inside)
    pose = camera_pose(profile, (scene.width / 2, scene.height / 2))
    return render_view(scene, profile, pose, seed)


def render_cell(
    label: str,
    attributes: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
    profile: str | AcquisitionProfile = "pbc-like",
    size: int = CROP_SIZE,
    um_per_px: float | None = CROP_UM,
) -> tuple[Image, GroundTruth]:
    """Draw one centred white cell, or artefact, among red cells, `size` pixels square.

    `label` is a white cell's class or a key of `ARTEFACTS`. The default is the canonical crop;
    `um_per_px=None` keeps the profile's own scale. The first of `truth.white`, or of
    `truth.of_kind("artefact")`, is the cell; attributes not given are drawn as its class has them.
    """
    profile = _sized(profile, (size, size))
    if um_per_px is not None:
        profile = replace(profile, um_per_px=um_per_px)
    scene, pose = _centred(profile, _only(label, attributes), seed)
    return render_view(scene, profile, pose, seed)


def render_cell_over(
    ground: Image,
    label: str,
    *,
    seed: int = 0,
    profile: str | AcquisitionProfile = "pbc-like",
    um_per_px: float = CROP_UM,
) -> Image:
    """Draw one centred white cell, or artefact, over a photograph of what lies on the glass.

    What is drawn absorbs the light that `ground`, uint8 RGB (H, W, 3), shows, as blurred as the
    profile's optics; the light, noise and compression are the photograph's own. `label` is as for
    `render_cell`; returns uint8 RGB (H, W, 3).
    """
    height, width = ground.shape[:2]
    profile = replace(_sized(profile, (width, height)), um_per_px=um_per_px)
    alone = replace(
        _only(label), red_density=0.0, platelet_density=0.0, debris_density=0.0, clumping=0.0
    )
    scene, pose = _centred(profile, alone, seed)
    light = transmitted_light(scene, profile, pose)
    return np.asarray(np.clip(ground * light + 0.5, 0, 255), dtype=np.uint8)


def _only(label: str, attributes: Mapping[str, str] | None = None) -> SceneSpec:
    """One white cell, or artefact, with red cells and platelets as the profile has them."""
    if label in ARTEFACTS:
        return SceneSpec(whites=0, artefacts={label: 1})
    return SceneSpec(whites=[Cell(None, label, dict(attributes or {}))])


def _centred(profile: AcquisitionProfile, spec: SceneSpec, seed: int) -> tuple[Scene, CameraPose]:
    """A scene whose one cell is in the middle of what the camera sees."""
    width, height = _extent(profile)
    wide, high = width + 10.0, height + 10.0
    middle = (wide / 2, high / 2)
    scene = build_scene(wide, high, spec.filled(profile), seed, (*middle, 0.0, 0.0))
    return scene, camera_pose(profile, middle)


@dataclass(frozen=True)
class RegisteredPair:
    """One scene imaged twice.

    Attributes:
        first, second: (image, truth) each.
        matrix: 2x3, from the first image's pixels to the second's.
    """

    first: tuple[Image, GroundTruth]
    second: tuple[Image, GroundTruth]
    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class ViewTransform:
    """Pose of the second camera relative to the first: rotation (degrees), shift (um), mirror."""

    degrees: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    mirror: bool = False


def render_pair(
    first: str | AcquisitionProfile = "lld100x-like",
    second: str | AcquisitionProfile = "lld40x-like",
    *,
    spec: SceneSpec | None = None,
    placement: ViewTransform | None = None,
    seed: int = 0,
) -> RegisteredPair:
    """Render one scene in two domains; a cell keeps its `id` and texture in both."""
    profiles = get_profile(first), get_profile(second)
    placement = placement or ViewTransform()
    reach = [float(np.hypot(*_extent(profile))) for profile in profiles]
    side = max(reach[0], reach[1] + 2 * max(abs(v) for v in placement.shift)) + 2 * MARGIN_UM
    middle = (side / 2, side / 2)
    width, height = _extent(profiles[0])
    inside = (side / 2 - width / 2, side / 2 - height / 2, width, height)
    scene = build_scene(side, side, (spec or SceneSpec()).filled(profiles[0]), seed, inside)
    centre = middle[0] + placement.shift[0], middle[1] + placement.shift[1]
    poses = (
        camera_pose(profiles[0], middle),
        camera_pose(profiles[1], centre, placement.degrees, placement.mirror),
    )
    renders = [render_view(scene, profiles[k], poses[k], seed + k) for k in (0, 1)]
    return RegisteredPair(renders[0], renders[1], transform_between(renders[0][1], renders[1][1]))


def transform_between(first: GroundTruth, second: GroundTruth) -> NDArray[np.float64]:
    """The 2x3 matrix from one image's pixels to another's, of the same scene."""
    a, b = (np.vstack([t.matrix, [0.0, 0.0, 1.0]]) for t in (first, second))
    return np.asarray((b @ np.linalg.inv(a))[:2], dtype=np.float64)


def render_case(
    profile: str | AcquisitionProfile = "lld40x-like",
    fields: int = 4,
    *,
    spec: SceneSpec | None = None,
    overlap: float = 0.3,
    turned: float = 0.1,
    seed: int = 0,
) -> list[tuple[Image, GroundTruth]]:
    """Render one large scene as several overlapping fields.

    Neighbours along a wandering path share about `overlap` of their width; a share `turned` of
    them is rotated by 180 degrees, as happens in LLD. One physical cell has the same `id` in every
    field; the specification's number of white cells is per field.
    """
    profile = get_profile(profile)
    rng = np.random.default_rng([seed, 3])
    scene, centres = _case_scene(profile, fields, spec or SceneSpec(), overlap, rng)
    renders = []
    for index, centre in enumerate(centres):
        degrees = 180.0 if index and rng.random() < turned else 0.0
        renders.append(
            render_view(scene, profile, camera_pose(profile, centre, degrees), seed + index)
        )
    return renders


def _case_scene(
    profile: AcquisitionProfile,
    fields: int,
    spec: SceneSpec,
    overlap: float,
    rng: np.random.Generator,
) -> tuple[Scene, list[tuple[float, float]]]:
    width, height = _extent(profile)
    columns = int(np.ceil(np.sqrt(fields)))
    rows = int(np.ceil(fields / columns))
    step = (1 - overlap) * width, (1 - overlap) * height
    wide = width + (columns - 1) * step[0] + 2 * MARGIN_UM
    high = height + (rows - 1) * step[1] + 2 * MARGIN_UM
    if isinstance(spec.whites, int):
        share = wide * high / (width * height)
        spec = replace(spec, whites=round(spec.whites * share))
    seed = int(rng.integers(2**31))
    scene = build_scene(wide, high, spec.filled(profile), seed)
    start = np.array([MARGIN_UM + width / 2, MARGIN_UM + height / 2])
    centres = []
    for index in range(fields):
        row, column = divmod(index, columns)
        jitter = rng.uniform(-0.04, 0.04, 2) * [width, height]
        x, y = start + np.array([column * step[0], row * step[1]]) + jitter
        centres.append((float(x), float(y)))
    return scene, centres
