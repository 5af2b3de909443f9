"""The synthetic film renderer: fields, cells, pairs, cases and data sets, with exact truth."""

from bloodfilm.synthetic.dataset import SetPlan, save_image, sparse_region, usual_recipe, write_set
from bloodfilm.synthetic.ground_truth import Seen, Truth
from bloodfilm.synthetic.morphology import MIXES, NORMAL_MIX, SIZE_BINS, TRAITS
from bloodfilm.synthetic.profiles import (
    LOOKS,
    STAINS,
    Look,
    Stain,
    get_look,
    random_look,
    vary_look,
)
from bloodfilm.synthetic.render import (
    Pair,
    Placement,
    render_case,
    render_cell,
    render_field,
    render_pair,
    transform_between,
)
from bloodfilm.synthetic.scene import Recipe, Scene, build_scene

__all__ = [
    "LOOKS",
    "MIXES",
    "NORMAL_MIX",
    "SIZE_BINS",
    "STAINS",
    "TRAITS",
    "Look",
    "Pair",
    "Placement",
    "Recipe",
    "Scene",
    "Seen",
    "SetPlan",
    "Stain",
    "Truth",
    "build_scene",
    "get_look",
    "random_look",
    "render_case",
    "render_cell",
    "render_field",
    "render_pair",
    "save_image",
    "sparse_region",
    "transform_between",
    "usual_recipe",
    "vary_look",
    "write_set",
]
