"""The synthetic film renderer: fields, cells, pairs, cases and data sets, with exact truth."""

from bloodfilm.films.looks import LOOKS, STAINS, Look, Stain, get_look, random_look, vary_look
from bloodfilm.films.render import (
    Pair,
    Placement,
    render_case,
    render_cell,
    render_field,
    render_pair,
    transform_between,
)
from bloodfilm.films.scene import Recipe, Scene, build_scene
from bloodfilm.films.sets import SetPlan, save_image, sparse_region, usual_recipe, write_set
from bloodfilm.films.traits import MIXES, NORMAL_MIX, SIZE_BINS, TRAITS
from bloodfilm.films.truth import Seen, Truth

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
