"""Image formation: render a scene with a profile, together with its ground truth."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats32, Image
from bloodfilm.synthetic.ground_truth import GroundTruth, VisibleObject
from bloodfilm.synthetic.morphology import CellObject
from bloodfilm.synthetic.noise_fields import PAINT_UM, noise
from bloodfilm.synthetic.profiles import AcquisitionProfile
from bloodfilm.synthetic.rasterize_artefacts import ARTEFACTS
from bloodfilm.synthetic.rasterize_cells import PaintedObject, paint_erythroblast, paint_white
from bloodfilm.synthetic.rasterize_small_objects import (
    paint_debris,
    paint_platelet,
    paint_red,
)
from bloodfilm.synthetic.scene import Scene

Matrix = NDArray[np.float64]

SHARPEN_UM = 0.14
"""Radius of the camera's unsharp mask, um on the glass: independent of the image's resolution."""


@dataclass(frozen=True)
class CameraPose:
    """Position and orientation of a camera.

    Attributes:
        width, height: pixels.
        matrix: 2x3, from um on the glass to pixels (the top-left pixel's corner is 0, 0).
    """

    width: int
    height: int
    matrix: Matrix


def camera_pose(
    profile: AcquisitionProfile,
    centre: tuple[float, float],
    degrees: float = 0.0,
    mirror: bool = False,
) -> CameraPose:
    """Return the pose centred on a point (um), rotated by `degrees`, or mirrored left to right.

    The rotation is on the glass, before the pixel aspect ratio applies, as for a rotated slide.
    """
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[-c, s], [s, c]]) if mirror else np.array([[c, -s], [s, c]])
    linear = np.diag([1 / profile.um_x, 1 / profile.um_per_px]) @ turn
    shift = np.array([profile.width / 2, profile.height / 2]) - linear @ np.array(centre)
    return CameraPose(profile.width, profile.height, np.column_stack([linear, shift]))


def paint(item: CellObject) -> PaintedObject:
    """Paint any object."""
    if item.kind == "white":
        return paint_white(item)
    if item.kind == "erythroblast":
        return paint_erythroblast(item)
    if item.kind == "red":
        return paint_red(item.seed, item.diameter, item.walls, item.form)
    if item.kind == "artefact":
        return ARTEFACTS[item.form][0](item.seed, item.diameter)
    if item.kind == "platelet":
        return paint_platelet(item.seed, item.diameter)
    return paint_debris(item.seed, item.diameter, item.form)


def render_view(
    scene: Scene, profile: AcquisitionProfile, pose: CameraPose, seed: int
) -> tuple[Image, GroundTruth]:
    """Render a scene: the image, uint8 RGB (H, W, 3), and its ground truth."""
    canvas = _drawn(scene, profile, pose)
    image = develop(canvas.density, profile, pose, np.random.default_rng([seed, 2]))
    return image, canvas.truth()


def transmitted_light(scene: Scene, profile: AcquisitionProfile, pose: CameraPose) -> Floats32:
    """Return the share of the light that a scene lets through, (H, W, 3), blurred by the optics."""
    density = np.maximum(_drawn(scene, profile, pose).density, 0)
    return _blurred(np.asarray(cv2.exp(density * np.float32(-np.log(10.0))), np.float32), profile)


def _drawn(scene: Scene, profile: AcquisitionProfile, pose: CameraPose) -> "_Canvas":
    """Lay all objects of a scene on a canvas, white cells on top."""
    canvas = _Canvas(profile, pose)
    order = {"debris": 0, "red": 1, "artefact": 2, "platelet": 3, "erythroblast": 4, "white": 5}
    objects = sorted(scene.objects, key=lambda t: order[t.kind])
    for item in (t for t in objects if order[t.kind] < 2):
        canvas.draw(item)
    canvas.blur_red_cells(profile.red_blur_um)
    for item in (t for t in objects if order[t.kind] >= 2):
        canvas.draw(item)
    return canvas


class _Canvas:
    """Optical density accumulated object by object, with its ground truth."""

    def __init__(self, profile: AcquisitionProfile, pose: CameraPose) -> None:
        shape = pose.height, pose.width
        self.profile, self.pose = profile, pose
        self.density = np.zeros((*shape, 3), np.float32)
        self.reds = np.zeros(shape, np.float32)
        self.instances = np.zeros(shape, np.uint16)
        self.nuclei = np.zeros(shape, np.bool_)
        self.visible: list[VisibleObject] = []
        self.dyes = profile.stain.matrix

    def draw(self, item: CellObject) -> None:
        """Add one object, if any of it is in view."""
        reach = item.diameter * 0.95 + 1.5
        span = reach * np.abs(self.pose.matrix[:, :2]).sum(axis=1)
        middle = self.pose.matrix @ [item.x, item.y, 1.0]
        if (middle + span < 0).any() or (middle - span > [self.pose.width, self.pose.height]).any():
            return
        layers, (left, top) = placed_layers(paint(item), self.dyes, item, self.pose)
        cover = layers[..., 3]
        full, solid = visible_extent(cover, left, top)
        h, w = cover.shape
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + w, self.pose.width), min(top + h, self.pose.height)
        if x0 >= x1 or y0 >= y1 or full is None:
            return
        inner = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        outer = np.s_[y0:y1, x0:x1]
        self._blend(item, layers[inner], outer)
        box, _ = visible_extent(cover[inner] * solid[inner], x0, y0)
        if box is None or item.kind == "debris":
            return
        fraction = float(solid[inner].sum() / max(solid.sum(), 1))
        self.visible.append(VisibleObject(item, box, full, fraction))
        if item.kind in ("white", "erythroblast", "artefact"):
            self.instances[outer][solid[inner]] = len(self.visible)
            self.nuclei[outer][solid[inner]] = False
            self.nuclei[outer] |= layers[inner][..., 4] > 0.5

    def _blend(self, item: CellObject, layers: Floats32, where: tuple[slice, slice]) -> None:
        colour, cover = layers[..., :3], layers[..., 3]
        if item.kind == "red":
            under = self.reds[where]
            lost = 1 - (1 - self.profile.pile) * under
            self.density[where] += colour * lost[..., None]
            self.reds[where] = np.maximum(under, cover)
        elif item.kind in ("white", "erythroblast"):
            self.density[where] *= (1 - cover)[..., None]
            self.density[where] += colour
        else:
            self.density[where] += colour

    def blur_red_cells(self, sigma_um: float) -> None:
        """Blur what has been laid so far."""
        if sigma_um > 0:
            self.density = np.asarray(
                cv2.GaussianBlur(
                    self.density,
                    (0, 0),
                    sigmaX=sigma_um / self.profile.um_x,
                    sigmaY=sigma_um / self.profile.um_per_px,
                ),
                dtype=np.float32,
            )

    def truth(self) -> GroundTruth:
        """The objects in view, sorted by kind and then in drawing order."""
        return GroundTruth(
            self.pose.width,
            self.pose.height,
            tuple(self.visible),
            self.profile.acquisition_domain(),
            self.pose.matrix,
            self.instances,
            self.nuclei,
        )


def placed_layers(
    patch: PaintedObject, dyes: Floats32, item: CellObject, pose: CameraPose
) -> tuple[Floats32, tuple[int, int]]:
    """Resample a patch onto the camera's pixels: (h, w, R G B density, cover, nucleus), corner."""
    n = patch.cover.shape[0]
    mixing = dyes[list(patch.which)]
    plain = len(patch.which) == 1  # of one dye: mix its colour last, on fewer pixels
    colour = patch.dyes if plain else np.asarray(cv2.transform(patch.dyes, mixing.T))
    parts = [colour, patch.cover] if plain else [colour, patch.cover, patch.nucleus]
    layers = np.asarray(cv2.merge(parts))
    linear = pose.matrix[:, :2] * PAINT_UM
    centre = np.full(2, (n - 1) / 2)
    shift = pose.matrix @ [item.x, item.y, 1.0] - 0.5 - linear @ centre
    corners = np.array([[0, 0], [n, 0], [0, n], [n, n]]) @ linear.T + shift
    left, top = (int(v) for v in np.floor(corners.min(axis=0)))
    right, bottom = (int(v) + 1 for v in np.ceil(corners.max(axis=0)))
    step = np.linalg.norm(np.linalg.inv(linear), axis=1)  # paint pixels per camera pixel
    if step.max() > 1.2:
        sx, sy = (0.4 * float(s) if s > 1.2 else 0.01 for s in step)
        layers = np.asarray(cv2.GaussianBlur(layers, (0, 0), sigmaX=sx, sigmaY=sy))
    matrix = np.column_stack([linear, shift - [left, top]])
    warped = cv2.warpAffine(layers, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    if plain:
        amount, cover = cv2.split(warped)
        empty = np.zeros_like(cover)
        warped = cv2.merge([*(amount * dye for dye in mixing[0]), cover, empty])
    return np.asarray(warped, dtype=np.float32), (left, top)


def visible_extent(
    cover: Floats32, left: int, top: int
) -> tuple[tuple[float, float, float, float] | None, NDArray[np.bool_]]:
    """The tight box of coverage 0.5, and the mask; no box if nothing is covered."""
    peak = float(cover.max(initial=0.0))
    solid = cover >= min(0.5, 0.5 * peak) if peak > 0.1 else np.zeros(cover.shape, np.bool_)
    columns, rows = np.flatnonzero(solid.any(axis=0)), np.flatnonzero(solid.any(axis=1))
    if not columns.size:
        return None, solid
    x, y = int(columns[0]), int(rows[0])
    box = (
        float(left + x),
        float(top + y),
        float(columns[-1] + 1 - x),
        float(rows[-1] + 1 - y),
    )
    return box, solid


def develop(
    density: Floats32, profile: AcquisitionProfile, pose: CameraPose, rng: np.random.Generator
) -> Image:
    """Turn optical density into what the camera saves: light, blur, sharpening, noise, JPEG."""
    height, width = density.shape[:2]
    white = np.array(profile.white, np.float32)
    light = np.asarray(cv2.exp(density * np.float32(-np.log(10.0))), dtype=np.float32)
    light *= np.float32(1 - profile.glare)
    light += np.float32(profile.glare)
    light *= white * _shading(height, width, profile, rng)[..., None]
    light = _blurred(light, profile)
    if profile.sharpen > 0:
        rx, ry = max(SHARPEN_UM / profile.um_x, 0.5), max(SHARPEN_UM / profile.um_per_px, 0.5)
        soft = np.asarray(cv2.GaussianBlur(light, (0, 0), sigmaX=rx, sigmaY=ry))
        light = np.asarray(
            cv2.addWeighted(light, 1 + profile.sharpen, soft, -profile.sharpen, 0.0),
            dtype=np.float32,
        )
    if profile.noise > 0:
        grain = rng.standard_normal((height, width, 3), dtype=np.float32)
        grain *= np.float32(profile.noise)
        light += grain
    light += np.float32(0.5)
    image = np.clip(light, 0, 255, out=light).astype(np.uint8)
    if profile.jpeg is not None:
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, profile.jpeg])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    return np.ascontiguousarray(image)


def _blurred(light: Floats32, profile: AcquisitionProfile) -> Floats32:
    """Blur by the lens and by what is out of focus."""
    sigma = float(np.hypot(profile.blur_um, profile.focus_um))
    sx, sy = max(sigma / profile.um_x, 0.2), max(sigma / profile.um_per_px, 0.2)
    return np.asarray(cv2.GaussianBlur(light, (0, 0), sigmaX=sx, sigmaY=sy), dtype=np.float32)


def _shading(
    height: int, width: int, profile: AcquisitionProfile, rng: np.random.Generator
) -> Floats32:
    """The illumination, about 1: vignette, a tilt in a random direction, a faint cloudiness."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    turn = rng.uniform(0, 2 * np.pi)
    tilt = profile.tilt * (x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn)))
    cloud = noise(rng, 64, 64 * PAINT_UM / 4) * 0.002
    cloud = np.asarray(cv2.resize(cloud, (width, height)), dtype=np.float32)
    return np.asarray(1 + tilt - profile.vignette * 0.5 * (x * x + y * y) + cloud, dtype=np.float32)
