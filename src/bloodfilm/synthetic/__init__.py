"""The synthetic film renderer: fields, cells, pairs, cases and data sets, with ground truth."""

from bloodfilm.synthetic.dataset import (
    DatasetSpec,
    default_scene,
    save_image,
    sparse_region,
    write_dataset,
)
from bloodfilm.synthetic.ground_truth import GroundTruth, VisibleObject
from bloodfilm.synthetic.hard_fields import hard_scene, write_hard_fields
from bloodfilm.synthetic.morphology import MIXES, MORPHOLOGIES, NORMAL_MIX, SIZE_BINS
from bloodfilm.synthetic.profiles import (
    PROFILES,
    STAINS,
    AcquisitionProfile,
    Stain,
    get_profile,
    random_profile,
    vary_profile,
)
from bloodfilm.synthetic.rasterize_artefacts import ARTEFACTS
from bloodfilm.synthetic.rasterize_small_objects import DEBRIS_FORMS, RED_FORMS
from bloodfilm.synthetic.render import (
    RegisteredPair,
    ViewTransform,
    render_case,
    render_cell,
    render_field,
    render_pair,
    transform_between,
)
from bloodfilm.synthetic.scene import Scene, SceneSpec, build_scene

__all__ = [
    "ARTEFACTS",
    "DEBRIS_FORMS",
    "MIXES",
    "MORPHOLOGIES",
    "NORMAL_MIX",
    "PROFILES",
    "RED_FORMS",
    "SIZE_BINS",
    "STAINS",
    "AcquisitionProfile",
    "DatasetSpec",
    "GroundTruth",
    "RegisteredPair",
    "Scene",
    "SceneSpec",
    "Stain",
    "ViewTransform",
    "VisibleObject",
    "build_scene",
    "default_scene",
    "get_profile",
    "hard_scene",
    "random_profile",
    "render_case",
    "render_cell",
    "render_field",
    "render_pair",
    "save_image",
    "sparse_region",
    "transform_between",
    "vary_profile",
    "write_dataset",
    "write_hard_fields",
]
