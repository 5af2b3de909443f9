"""Registration of rendered pairs, whose true map is known, and refusal of unrelated ones."""

from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.imaging.canonical import canonical_view
from bloodfilm.registration.align import confidence_of, register
from bloodfilm.registration.matching import match, unmirror
from bloodfilm.registration.verify import AlignmentEvidence
from bloodfilm.registration.view import SCALES, ImageCandidate, Keypoints, common_scales
from bloodfilm.synthetic import PROFILES, SceneSpec, ViewTransform, render_field, render_pair

# Smaller frames than the looks': what matters is what differs between them, not how much there is.
FIRST = replace(PROFILES["lld100x-like"], width=360, height=420)
SECOND = replace(PROFILES["lld40x-pale"], width=340, height=420)


def photograph(image):
    return ImageCandidate(image, canonical_view(image))


def worst(pair, matrix):
    """Largest distance, in px of the second picture, from the true map over what both show."""
    truth = pair.second[1]
    width, height = pair.first[1].width, pair.first[1].height
    points = np.stack(np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9)), -1)
    points = points.reshape(-1, 2)
    right = points @ pair.matrix[:, :2].T + pair.matrix[:, 2]
    shown = ((right >= 0) & (right <= [truth.width, truth.height])).all(axis=1)
    off = points @ matrix[:, :2].T + matrix[:, 2] - right
    return np.hypot(*off[shown].T).max()


@pytest.fixture(scope="module")
def mirrored():
    """One field in two cameras, the second turned by 35 degrees and in a mirror."""
    placement = ViewTransform(35.0, (4.0, -3.0), mirror=True)
    return render_pair(FIRST, SECOND, spec=SceneSpec(whites=3), placement=placement, seed=4)


@pytest.fixture(scope="module")
def found(mirrored):
    return register(photograph(mirrored.first[0]), photograph(mirrored.second[0]))


def test_a_turned_and_mirrored_field_in_another_stain_is_aligned(mirrored, found):
    assert found.aligned
    assert found.mirrored
    assert found.confidence > 0.95
    assert worst(mirrored, found.matrix) < 2.0
    assert found.residual_px < 2.0


def test_the_record_is_plain_and_says_why(found):
    data = found.to_json()
    assert data["verdict"] == "aligned"
    assert np.allclose(data["matrix"], found.matrix, atol=1e-5)
    assert data["patches_that_agree"] <= data["patches"]
    assert "patches agree" in data["reason"]


def test_the_same_pair_gives_the_same_map(mirrored, found):
    again = register(photograph(mirrored.first[0]), photograph(mirrored.second[0]))
    assert np.array_equal(again.matrix, found.matrix)


def test_there_and_back_is_where_it_began(mirrored, found):
    back = register(photograph(mirrored.second[0]), photograph(mirrored.first[0]))
    loop = np.vstack([back.matrix, [0, 0, 1]]) @ np.vstack([found.matrix, [0, 0, 1]])
    point = loop @ [180, 210, 1]
    assert np.allclose(point[:2], [180, 210], atol=1.0)


def test_another_field_is_refused(mirrored):
    other, _ = render_field(SECOND, SceneSpec(whites=3), seed=77)
    refused = register(photograph(mirrored.first[0]), photograph(other))
    assert not refused.aligned
    assert refused.confidence < 0.05
    assert refused.reason


def test_nothing_and_noise_are_refused(mirrored):
    field = photograph(mirrored.first[0])
    empty = np.full((200, 200, 3), 240, np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    for image in (empty, noise):
        for pair in ((field, photograph(image)), (photograph(image), field)):
            assert not register(*pair).aligned
    assert not register(photograph(empty), photograph(empty)).aligned


def test_squeeze_that_nobody_can_tell_is_tried(mirrored):
    image = mirrored.first[0]
    view = canonical_view(image)
    um = view.um_per_px_y
    unsure = replace(view, um_per_px_x=um, um_per_px_y=um, aspect_source="assumed")
    found = register(ImageCandidate(image, unsure), photograph(mirrored.second[0]))
    assert found.aligned
    assert worst(mirrored, found.matrix) < 2.0


def test_confidence_grows_with_the_share_and_with_the_number():
    def sure(agree, patches):
        return confidence_of(AlignmentEvidence(patches, agree, 0.1, 0.9, 1e4))

    assert sure(0, 0) < 0.01
    assert sure(2, 2) < 0.5  # two patches of two are no proof
    assert sure(10, 100) < 0.01
    assert sure(60, 100) < sure(90, 100)
    assert sure(9, 10) < sure(90, 100)
    assert sure(95, 100) > 0.95


def test_overlapping_patches_count_by_their_area():
    many_of_little = AlignmentEvidence(200, 200, 0.1, 0.9, 150.0)
    assert many_of_little.share < 0.5


def test_matches_are_symmetric_in_who_asks():
    rng = np.random.default_rng(1)
    descriptors = rng.random((30, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    points = rng.random((30, 2)).astype(np.float32)
    few = Keypoints(points[:10], descriptors[:10])
    all_of_them = Keypoints(points, descriptors)
    pairs = match(few, all_of_them)
    assert sorted(map(tuple, pairs)) == [(i, i) for i in range(10)]
    assert sorted(map(tuple, match(all_of_them, few))) == [(i, i) for i in range(10)]
    none = Keypoints(points[:0], descriptors[:0])
    assert len(match(none, all_of_them)) == len(match(all_of_them, none)) == 0


def test_unmirroring_flips_about_the_middle():
    plain = unmirror(np.array([[1.0, 0, 0], [0, 1, 0]]), 100)
    assert np.allclose(plain @ [0, 5, 1], [99, 5])


def test_scale_is_the_coarser_one_s_and_finer_for_small_fields():
    view = canonical_view(np.full((500, 500, 3), 240, np.uint8))
    fine, coarse = (replace(view, um_per_px_x=u, um_per_px_y=u) for u in (0.05, 0.3))
    assert set(common_scales(fine, coarse)) <= set(SCALES)
    assert common_scales(fine, coarse)[0] == 0.32
    assert all(s < 0.32 for s in common_scales(fine, coarse)[1:])
    assert common_scales(coarse, coarse) == [0.32]
    assert common_scales(fine, fine) == [SCALES[0]]
