"""Rendered crops of what is no white cell: labels, chances, the same again."""

from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, Node, Taxonomy
from bloodfilm.training.config import RenderedSection
from bloodfilm.training.data.rendered_crops import (
    render_training_crops,
    render_validation_crops,
    rendered_weights,
)
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY
from tiny import silent

VOCABULARY = replace(DEFAULT_VOCABULARY, other="other object")
SECTION = RenderedSection(objects=2, cells=5, validation=1)
OBJECTS = DEFAULT_TAXONOMY.leaves_under("other object")


@pytest.fixture(scope="module")
def crops():
    return render_training_crops(VOCABULARY, SECTION, 3, silent)


def test_leaves_are_those_of_cells_and_then_of_objects():
    assert VOCABULARY.leaves == DEFAULT_VOCABULARY.leaves + OBJECTS


def test_objects_have_their_class_and_cells_are_of_any(crops):
    assert crops.images.shape == (2 * len(OBJECTS) + 5, 224, 224, 3)
    of_object = crops.allowed[: 2 * len(OBJECTS)]
    assert [VOCABULARY.leaves[a.argmax()] for a in of_object] == [n for n in OBJECTS for _ in "ab"]
    assert (of_object.sum(1) == 1).all()
    for label in crops.allowed[2 * len(OBJECTS) :]:
        assert set(np.array(VOCABULARY.leaves)[label]) == set(DEFAULT_VOCABULARY.leaves)
    assert (crops.codes == -1).all()


def test_the_same_seed_renders_the_same_and_validation_something_else(crops):
    again = render_training_crops(VOCABULARY, SECTION, 3, silent)
    assert np.array_equal(again.images, crops.images)
    held = render_validation_crops(VOCABULARY, SECTION, 3, silent)
    assert len(held) == 2 * len(OBJECTS)  # one of each class, and as many cells
    assert not any((image == crops.images).all((1, 2, 3)).any() for image in held.images)


def test_over_a_photograph_only_the_object_is_drawn():
    ground = np.full((1, 224, 224, 3), 200, np.uint8)
    ground[0, :60, :60] = (180, 120, 130)  # a red cell far from the middle
    over = SECTION.model_copy(update={"over_real": 1.0})
    crops = render_training_crops(VOCABULARY, over, 3, silent, ground)
    corners = {tuple(image[a, b]) for image in crops.images for a in (2, -3) for b in (2, -3)}
    assert corners <= {(200, 200, 200), (180, 120, 130)}
    darkest = crops.images[:, 80:144, 80:144].min((1, 2, 3))
    assert (darkest < 190).all() and (crops.images <= 200).all()  # it absorbs, and adds no light


def test_half_of_the_draws_are_cells_and_the_classes_share_the_rest(crops):
    weights = rendered_weights(crops)
    is_object = crops.allowed.sum(1) == 1
    assert weights.sum() == pytest.approx(1) and weights[~is_object].sum() == pytest.approx(0.5)
    assert np.ptp(weights[is_object]) == 0


def test_nothing_is_rendered_without_a_class_for_it():
    assert render_training_crops(DEFAULT_VOCABULARY, SECTION, 0, silent) is None
    assert render_validation_crops(DEFAULT_VOCABULARY, SECTION, 0, silent) is None


def test_a_class_that_cannot_be_rendered_is_named():
    tree = DEFAULT_TAXONOMY.join(
        Taxonomy((Node("cell"), Node("other object", "cell"), Node("lint", "other object")))
    )
    with pytest.raises(ConfigError, match="'lint' cannot be rendered"):
        render_training_crops(replace(VOCABULARY, taxonomy=tree), SECTION, 0, silent)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("no such", "data.other: 'no such' is not in the taxonomy"),
        ("white cell", "data.other: 'white cell' and the object type 'nucleated cell' overlap"),
        ("cell", "overlap"),
    ],
)
def test_objects_are_of_the_tree_and_outside_the_object_types(other, message):
    with pytest.raises(ConfigError, match=message):
        replace(DEFAULT_VOCABULARY, other=other)
