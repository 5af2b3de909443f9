"""Suppression and pairing of boxes: against plain references, and where n squared would hurt."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core.boxes import iou, nms, overlapping_pairs, paired_iou

numbers = st.integers(0, 2**32 - 1)


def plain_nms(boxes, scores, threshold, groups):
    """Greedy suppression by the book: all IoUs, one box after the other."""
    overlaps = iou(boxes, boxes)
    order = np.argsort(-scores, kind="stable")
    kept = []
    for i in order:
        if all(overlaps[i, k] <= threshold or groups[i] != groups[k] for k in kept):
            kept.append(i)
    return kept


@given(
    seed=numbers,
    n=st.integers(0, 60),
    threshold=st.sampled_from([0.0, 0.2, 0.5, 0.7, 0.95]),
    block=st.sampled_from([1, 3, 256]),
)
def test_nms_keeps_exactly_what_plain_suppression_keeps(seed, n, threshold, block):
    import bloodfilm.core.boxes as module

    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.uniform(0, 80, (n, 2)), rng.uniform(1, 60, (n, 2))], axis=1)
    scores = rng.integers(0, 20, n) / 20  # some are equal
    groups = rng.integers(0, 2, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FIRST_BLOCK", block)
        kept = nms(boxes, scores, threshold, groups)
    assert kept.tolist() == plain_nms(boxes, scores, threshold, groups)


@given(seed=numbers, n=st.integers(2, 50), m=st.integers(0, 50))
def test_pairs_are_found_once_however_unlike_the_sizes(seed, n, m):
    rng = np.random.default_rng(seed)

    def some(count):
        sides = np.exp(rng.uniform(0, 6, (count, 2)))
        return np.concatenate([rng.uniform(-200, 200, (count, 2)), sides], axis=1)

    def pairs(*arrays):
        return sorted(zip(*(a.tolist() for a in arrays), strict=True))

    one, other = some(n), some(m)
    wanted = np.argwhere(np.triu(iou(one, one) > 0.3, 1))
    assert pairs(*overlapping_pairs(one, 0.3)) == sorted(map(tuple, wanted.tolist()))
    wanted = np.argwhere(iou(one, other) > 0.3)
    assert pairs(*overlapping_pairs(one, 0.3, other)) == sorted(map(tuple, wanted.tolist()))


def test_paired_iou_is_the_diagonal():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(1, 40, (2, 30, 4))
    np.testing.assert_allclose(paired_iou(a, b), iou(a, b).diagonal())


def traced(work):
    tracemalloc.start()
    result = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


def test_a_field_of_two_thousand_red_cells_takes_little_memory():
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(50), np.arange(40)), -1).reshape(-1, 2) * 36 + 20.0
    around = np.repeat(centres, 12, axis=0) + rng.uniform(-2, 2, (24000, 2))
    boxes = np.concatenate([around - 15, np.full((24000, 2), 30.0)], axis=1)
    kept, peak = traced(lambda: nms(boxes, np.linspace(1, 0, len(boxes)), 0.5))
    assert len(kept) == 2000
    assert peak < 200e6  # all pairs would take 24000 ** 2 * 8 bytes = 4.6 GB


def test_a_heap_of_boxes_on_one_spot_costs_each_box_once(monkeypatch):
    import bloodfilm.core.boxes as module

    compared = []
    real = module.paired_iou
    monkeypatch.setattr(module, "paired_iou", lambda a, b: (compared.append(len(a)), real(a, b))[1])
    boxes = np.tile([(10.0, 10.0, 30.0, 30.0)], (60_000, 1))
    kept, peak = traced(lambda: nms(boxes, np.ones(len(boxes)), 0.5))
    assert kept.tolist() == [0]
    assert sum(compared) < 2 * len(boxes) + 256**2
    assert peak < 200e6
