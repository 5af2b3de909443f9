"""Data sets of rendered fields: images on disk and a `Dataset` with their annotations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from bloodfilm.core.arrays import Image
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.field import Field
from bloodfilm.core.files import write_bytes
from bloodfilm.core.polygons import Region
from bloodfilm.synthetic.ground_truth import GroundTruth
from bloodfilm.synthetic.morphology import MIXES
from bloodfilm.synthetic.profiles import AcquisitionProfile, get_profile, vary_profile
from bloodfilm.synthetic.render import render_field
from bloodfilm.synthetic.scene import SceneSpec

CLOSE_UP_UM = 60.0


@dataclass(frozen=True)
class DatasetSpec:
    """Specification of a rendered data set.

    Attributes:
        profiles: names in `PROFILES`, or `AcquisitionProfile`s; assigned to patients in turn.
        patients: number of patients; each has one profile, varied as a separate slide, and one
            class mix.
        diagnoses: names in `MIXES`; assigned to patients in turn.
        spec: the scene of every field; its mix is replaced by the patient's diagnosis.
        splits: share of the patients in train, val and test.
        sparse: if set, share of a field's white cells that a single rectangle, the field's
            annotated region, holds; cells outside it are left out of the truth.
        small: whether red cells and platelets are annotated too.
        size: (width, height) of the fields; `None` uses the profiles'.
        suffix: `.png` or `.jpg`.
    """

    profiles: Sequence[str | AcquisitionProfile] = ("pbc-like",)
    patients: int = 4
    diagnoses: Sequence[str] = ("normal",)
    spec: SceneSpec = SceneSpec()  # noqa: RUF009 - frozen
    splits: tuple[float, float, float] = (0.5, 0.25, 0.25)
    sparse: float | None = None
    small: bool = False
    size: tuple[int, int] | None = None
    suffix: str = ".png"


def default_scene(
    profile: AcquisitionProfile, mix: str | Mapping[str, float] = "normal"
) -> SceneSpec:
    """Return a typical scene for a profile.

    A close-up, under 60 um high, holds one whole cell; a wider field holds five, some of them cut.
    """
    close = profile.height * profile.um_per_px < CLOSE_UP_UM
    return SceneSpec(whites=1 if close else 5, mix=mix, cut=0.0 if close else 0.1)


def write_dataset(
    folder: Path, n: int, plan: DatasetSpec | None = None, *, seed: int = 0
) -> Dataset:
    """Render `n` fields into `folder` (made if missing) and return them as a `Dataset`.

    Fields are assigned to patients in turn; a patient is in one split only. The same arguments
    write the same bytes. Only images are written: pass the result to a writer of `formats/` for
    labels.
    """
    plan = plan or DatasetSpec()
    unknown = [d for d in plan.diagnoses if d not in MIXES]
    if unknown or plan.patients < 1 or plan.suffix not in (".png", ".jpg"):
        raise ConfigError(
            f"films: cannot plan a set with diagnoses {list(plan.diagnoses)}, "
            f"{plan.patients} patients, {plan.suffix!r} files; known: {', '.join(MIXES)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    fields = tuple(_one(folder, index, plan, seed) for index in range(n))
    return Dataset("rendered films", fields, licence="CC0-1.0", source=folder)


def _one(folder: Path, index: int, plan: DatasetSpec, seed: int) -> Field:
    patient = index % plan.patients
    profile = get_profile(plan.profiles[patient % len(plan.profiles)])
    profile = vary_profile(profile, np.random.default_rng([seed, 4, patient]))
    diagnosis = plan.diagnoses[patient % len(plan.diagnoses)]
    spec = plan.spec if diagnosis == "normal" else replace(plan.spec, mix=diagnosis)
    own = seed * 1_000_003 + index
    image, truth = render_field(profile, spec, seed=own, size=plan.size)
    if plan.sparse is not None:
        truth = truth.limited(sparse_region(truth, plan.sparse, own))
    path = folder / f"{patient + 1}_{index + 1}{plan.suffix}"
    save_image(path, image)
    return replace(
        truth.field(path, plan.small),
        patient=str(patient + 1),
        diagnosis=diagnosis,
        split=_split(patient, plan),
        meta={"look": profile.name},
    )


def _split(patient: int, plan: DatasetSpec) -> str:
    """Assign a patient to a split such that the shares are approximated for few patients too."""
    place = (patient + 0.5) / plan.patients
    train, val, _ = np.cumsum(plan.splits) / sum(plan.splits)
    return "train" if place < train else "val" if place < val else "test"


def sparse_region(truth: GroundTruth, share: float, seed: int) -> Region:
    """Return one rectangle that holds about `share` of the white cells, at least one.

    It is grown around a randomly chosen white cell; without any cell it is the centre of the field.
    """
    rng = np.random.default_rng([seed, 5])
    boxes = np.array([s.box for s in truth.white]).reshape(-1, 4)
    if not len(boxes):
        w, h = truth.width * share**0.5, truth.height * share**0.5
        return Region.rect((truth.width - w) / 2, (truth.height - h) / 2, w, h)
    first = boxes[int(rng.integers(len(boxes)))]
    apart = np.abs(boxes[:, :2] + boxes[:, 2:] / 2 - first[:2] - first[2:] / 2).max(axis=1)
    chosen = boxes[np.argsort(apart)[: max(1, round(share * len(boxes)))]]
    pad = 4.0
    x0, y0 = np.maximum(chosen[:, :2].min(axis=0) - pad, 0)
    x1 = min(float((chosen[:, 0] + chosen[:, 2]).max()) + pad, truth.width)
    y1 = min(float((chosen[:, 1] + chosen[:, 3]).max()) + pad, truth.height)
    return Region.rect(float(x0), float(y0), x1 - float(x0), y1 - float(y0))


def save_image(path: Path, image: Image) -> None:
    """Write an RGB image as PNG or JPEG, by its suffix; `DataError` if that fails."""
    done, data = cv2.imencode(path.suffix, image[..., ::-1])
    if not done:
        raise DataError(f"{path}: could not be encoded; use .png or .jpg")
    write_bytes(path, data.tobytes(), sync=False)
