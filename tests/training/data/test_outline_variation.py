"""Variations of drawn cells: image and masks alike, and nothing changed that should not be."""

import cv2
import numpy as np
import pytest

from bloodfilm.training.data.outline_variation import (
    add_neighbour,
    add_plasma,
    bend,
    strip,
    vary_cytoplasm,
)

SIDE = 144
GLASS, CYTOPLASM, NUCLEUS = (240, 240, 240), (190, 180, 215), (90, 60, 140)
Y, X = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2


def cell(nucleus=30.0, body=40.0):
    """A round cell in the middle of clear glass, with its masks."""
    inside = [np.hypot(X, Y) < body, np.hypot(X, Y) < nucleus]
    image = np.full((SIDE, SIDE, 3), GLASS, np.uint8)
    for mask, colour in zip(inside, (CYTOPLASM, NUCLEUS), strict=True):
        image[mask] = colour
    return image, np.stack(inside, axis=-1).astype(np.uint8) * 255


def sure(mask):
    """Pixels at some distance from any border: glass, cytoplasm, nucleus."""
    body, nucleus = mask[..., 0], mask[..., 1]
    areas = body == 0, (body == 255) & (nucleus == 0), nucleus == 255
    return [cv2.erode(a.astype(np.uint8), np.ones((7, 7))) > 0 for a in areas]


def test_a_bent_cell_keeps_its_masks():
    image, mask = cell()
    moved = 0.0
    for seed in range(5):
        bent, masks = bend(image, mask, np.random.default_rng(seed), 0.03)
        assert bent.dtype == masks.dtype == np.uint8
        glass, cytoplasm, nucleus = sure(masks)
        assert np.abs(bent[nucleus].astype(int) - NUCLEUS).max() <= 2
        assert np.abs(bent[glass].astype(int) - GLASS).max() <= 2
        assert np.abs(bent[cytoplasm].astype(int) - CYTOPLASM).max(initial=0) <= 2
        moved = max(moved, np.mean((masks[..., 0] > 127) != (mask[..., 0] > 127)))
    assert moved > 0.02
    same, _ = bend(image, mask, np.random.default_rng(0), 0.0)
    assert (same == image).all()


def test_a_stripped_cell_is_its_nucleus_on_glass():
    image, mask = cell()
    bare, masks = strip(image, mask)
    assert (masks[..., 0] == mask[..., 1]).all() and (masks[..., 1] == mask[..., 1]).all()
    glass, _, nucleus = sure(masks)
    assert np.abs(bare[glass].astype(int) - GLASS).max() <= 1
    assert np.abs(bare[nucleus].astype(int) - NUCLEUS).max() <= 1


def test_a_cell_with_much_cytoplasm_is_not_stripped():
    assert strip(*cell(nucleus=20)) is None


def test_only_cytoplasm_changes_with_cytoplasm():
    image, mask = cell(nucleus=20)
    glass, cytoplasm, nucleus = sure(mask)
    light = []
    for seed in range(12):
        varied = vary_cytoplasm(image, mask, np.random.default_rng(seed))
        for same, colour in ((glass, GLASS), (nucleus, NUCLEUS)):
            assert np.abs(varied[same].astype(int) - colour).max() <= 1
        light.append(float(varied[cytoplasm].mean()))
    # Paler in some, darker in others, but never glass.
    assert min(light) < np.mean(CYTOPLASM) < max(light) < 235


@pytest.mark.parametrize("seed", range(6))
def test_a_neighbour_lies_against_the_cell_and_leaves_it_alone(seed):
    image, mask = cell(nucleus=20, body=30)
    joined = add_neighbour(image, mask, np.random.default_rng(seed))
    body = mask[..., 0] > 0
    assert (joined[body] == image[body]).all()
    added = (np.abs(joined.astype(int) - image).max(axis=-1) > 20).astype(np.uint8)
    # One more cell, no farther from this one than its own border is soft.
    reach = np.hypot(X, Y)[added > 0]
    assert 30 <= reach.min() < 33 and reach.max() < 30 + 60 * 1.02 + 2
    count, _ = cv2.connectedComponents(cv2.dilate(added | body, np.ones((3, 3), np.uint8)))
    assert count == 2
    assert (np.abs(joined.astype(int) - NUCLEUS).max(axis=-1) < 5).sum() > 1.7 * np.pi * 20**2


def test_a_crop_without_a_cell_gets_no_neighbour():
    image, mask = cell()
    assert (add_neighbour(image, mask * 0, np.random.default_rng(0)) == image).all()


@pytest.mark.parametrize("seed", range(6))
def test_plasma_darkens_the_glass_more_than_the_cell(seed):
    image, mask = cell()
    stained = add_plasma(image, mask, np.random.default_rng(seed))
    glass, _, nucleus = sure(mask)

    def absorbed(where):
        return float(-np.log(np.maximum(stained[where], 1) / image[where]).mean())

    assert absorbed(glass) > 0.01
    assert -0.01 < absorbed(nucleus) < absorbed(glass) + 0.01
    assert (stained.astype(int) <= image.astype(int) + 1).all()
