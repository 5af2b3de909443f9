import numpy as np
import pytest

from bloodfilm.core.detections import Detections


def test_from_xyxy_round_trips_and_defaults_to_the_first_type():
    found = Detections.from_xyxy([[1, 2, 5, 10], [0, 0, 2, 2]], [0.5, 0.25])
    assert found.boxes.tolist() == [[1, 2, 4, 8], [0, 0, 2, 2]]
    assert found.xyxy.tolist() == [[1, 2, 5, 10], [0, 0, 2, 2]]
    assert found.type_ids.tolist() == [0, 0] and found.type_ids.dtype == np.intp


def test_from_xyxy_takes_no_boxes():
    assert len(Detections.from_xyxy([], [])) == 0


def test_merge_keeps_the_order_of_the_parts():
    one = Detections.from_xyxy([[0, 0, 1, 1]], [0.1], [2])
    other = Detections.from_xyxy([[0, 0, 2, 2]], [0.9], [1])
    merged = Detections.merge([one, Detections.empty(), other])
    assert merged.type_ids.tolist() == [2, 1] and merged.scores.tolist() == [0.1, 0.9]
    assert len(Detections.merge([])) == 0


def test_take_selects_by_mask_and_by_index():
    found = Detections.from_xyxy([[0, 0, 1, 1], [0, 0, 2, 2]], [0.1, 0.9], [0, 1])
    assert found.take(found.scores > 0.5).type_ids.tolist() == [1]
    assert found.take(np.array([1, 0])).scores.tolist() == [0.9, 0.1]


@pytest.mark.parametrize(
    ("boxes", "scores", "types"), [((1, 4), 2, 2), ((2, 3), 2, 2), ((2, 4), 2, 1)]
)
def test_arrays_that_do_not_belong_together_are_refused(boxes, scores, types):
    with pytest.raises(ValueError, match="boxes, scores and type_ids have shapes"):
        Detections(np.zeros(boxes), np.zeros(scores), np.zeros(types, dtype=np.intp))
