"""Keypoints: those that are chosen are described as if all had been."""

import numpy as np

from bloodfilm.imaging.canonical import canonical_view
from bloodfilm.registration.view import find_features, prepare_view
from bloodfilm.synthetic import render_field


def test_chosen_keypoints_are_those_of_all():
    image, _ = render_field("lld40x-like", seed=3, size=(480, 360))
    detail = prepare_view(image, canonical_view(image), 0.5).detail
    every = find_features(detail)
    seen = []

    def choose(points):
        seen.append(points)
        return np.arange(len(points))[::3]

    some = find_features(detail, None, choose)
    assert np.array_equal(seen[0], every.points) and len(every.points) > 30
    for name in ("points", "angles", "descriptors"):
        assert np.array_equal(getattr(some, name), getattr(every, name)[::3])


def test_a_choice_of_none_and_a_field_without_any():
    image, _ = render_field("lld40x-like", seed=3, size=(480, 360))
    detail = prepare_view(image, canonical_view(image), 0.5).detail
    none = find_features(detail, None, lambda points: np.arange(0))
    empty = find_features(np.full((100, 100), 128, np.uint8))
    for found in (none, empty):
        assert found.points.shape == (0, 2) and found.descriptors.shape == (0, 128)
