"""The detector's loss: what lowers it, what has no say in it, which location learns which cell."""

import numpy as np
import pytest
import torch

from bloodfilm.losses.detection import assign, boxes_at, detection_loss, giou, locations
from bloodfilm.losses.targets import Target, TargetBatch
from bloodfilm.models.detector import CellDetector

torch.set_num_threads(1)
STRIDE, GRID, KINDS = 4, 16, 3
SIZE = STRIDE * GRID


def target(boxes, kinds=None, weights=None, known=None):
    n = len(boxes)
    return Target(
        np.array(boxes, np.float32).reshape(n, 4),
        np.array([0] * n if kinds is None else kinds, np.int64),
        np.array([1] * n if weights is None else weights, np.float32),
        np.ones((GRID, GRID), bool) if known is None else known,
    )


def outputs(seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        "types": (torch.randn(batch, KINDS, GRID, GRID, generator=generator) - 2).requires_grad_(),
        "boxes": (torch.rand(batch, 4, GRID, GRID, generator=generator) * 20 + 1).requires_grad_(),
    }


def perfect(boxes, kinds):
    """Outputs that say the truth: exact boxes, and scores at the locations that shall learn."""
    points = locations(GRID, GRID, STRIDE, torch.device("cpu"))
    distances = torch.ones(1, GRID * GRID, 4)
    for x, y, w, h in boxes:
        low, high = torch.tensor([x, y]), torch.tensor([x + w, y + h])
        inside = ((points > low) & (points < high)).all(1)
        distances[0, inside] = torch.cat([points - low, high - points], 1)[inside]
    truth = TargetBatch.collate([target(boxes, kinds)])
    even = torch.full((1, GRID * GRID, KINDS), 0.5)
    found = assign(even, boxes_at(distances, points), points, truth)
    logits = torch.full((1, GRID * GRID, KINDS), -9.0)
    at = found.positive[0].nonzero().flatten()
    logits[0, at, truth.type_ids[0][found.index[0, at]]] = 9.0
    shape = (1, -1, GRID, GRID)
    return {
        "types": logits.transpose(1, 2).reshape(shape),
        "boxes": distances.transpose(1, 2).reshape(shape),
    }


def total(terms):
    return sum(terms.values())


def numbers(terms):
    return {k: v.item() for k, v in terms.items()}


BOXES, NAMES = [[8.0, 8.0, 24.0, 24.0], [40.0, 36.0, 10.0, 10.0]], [0, 2]


def test_locations_are_centres_row_by_row():
    points = locations(2, 3, 4, torch.device("cpu"))
    assert points.tolist() == [[2, 2], [6, 2], [10, 2], [2, 6], [6, 6], [10, 6]]
    box = boxes_at(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), points[:1])
    assert box.tolist() == [[1, 0, 5, 6]]


@pytest.mark.parametrize(
    ("a", "b", "iou", "generalised"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0, 1.0),
        ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
        ([0, 0, 1, 1], [3, 0, 4, 1], 0.0, -0.5),
        ([0, 0, 4, 4], [1, 1, 3, 3], 0.25, 0.25),
    ],
)
def test_giou_by_hand(a, b, iou, generalised):
    found = giou(torch.tensor(a, dtype=torch.float), torch.tensor(b, dtype=torch.float))
    assert [float(v) for v in found] == pytest.approx([iou, generalised], abs=1e-5)


def test_the_loss_of_the_truth_is_near_zero_and_every_term_ranks_better_outputs_lower():
    truth = TargetBatch.collate([target(BOXES, NAMES)])
    best = detection_loss(perfect(BOXES, NAMES), truth, STRIDE)
    assert float(total(best)) < 0.02

    shy = perfect(BOXES, NAMES)
    shy["types"] = shy["types"].clamp(max=0)
    assert detection_loss(shy, truth, STRIDE)["object_type"] > best["object_type"] + 0.1
    wrong = perfect(BOXES, [1, 1])
    assert detection_loss(wrong, truth, STRIDE)["object_type"] > best["object_type"] + 0.1
    for by in (1.0, 3.0):
        wide = perfect(BOXES, NAMES)
        wide["boxes"] = wide["boxes"] + by
        worse = detection_loss(wide, truth, STRIDE)
        assert worse["box"] > best["box"] + 0.02 and worse["edge"] > best["edge"] + 0.02
        best = worse


def test_a_false_alarm_costs():
    truth = TargetBatch.collate([target(BOXES, NAMES)])
    alarm = perfect(BOXES, NAMES)
    alarm["types"][0, 1, 0, 15] = 4.0
    quiet = detection_loss(perfect(BOXES, NAMES), truth, STRIDE)
    assert detection_loss(alarm, truth, STRIDE)["object_type"] > quiet["object_type"] + 0.1


def test_a_step_along_the_gradient_lowers_the_loss():
    truth = TargetBatch.collate([target(BOXES, NAMES)])
    out = outputs()
    before = total(detection_loss(out, truth, STRIDE))
    before.backward()
    moved = {k: (v - 0.01 * v.grad / v.grad.norm()).detach() for k, v in out.items()}
    assert total(detection_loss(moved, truth, STRIDE)) < before


def known_left_half():
    known = np.zeros((GRID, GRID), bool)
    known[:, : GRID // 2] = True
    return known


@pytest.mark.parametrize("bad", [None, torch.inf, -torch.inf, torch.nan])
def test_unknown_locations_have_no_gradient_and_no_influence(bad):
    """Whatever the network says there: also infinities and NaN."""
    known = known_left_half()
    # The first cell reaches over the border of what is known; the second is beyond it.
    boxes = [[20.0, 8.0, 24.0, 24.0], [44.0, 40.0, 12.0, 12.0]]
    truth = TargetBatch.collate([target(boxes, [0, 1], known=known)])
    plain = detection_loss(outputs(), truth, STRIDE)
    out = outputs()
    if bad is not None:
        spoilt = {k: v.detach().clone() for k, v in out.items()}
        for v in spoilt.values():
            v[..., ~torch.from_numpy(known)] = bad
        out = {k: v.requires_grad_() for k, v in spoilt.items()}
    terms = detection_loss(out, truth, STRIDE)
    assert numbers(terms) == numbers(plain)
    total(terms).backward()
    for v in out.values():
        assert (v.grad[..., ~torch.from_numpy(known)] == 0).all()
        assert v.grad[..., torch.from_numpy(known)].isfinite().all()
    assert (out["types"].grad[..., torch.from_numpy(known)] != 0).all()


def test_ignored_ground_inside_a_field_teaches_nothing():
    known = np.ones((GRID, GRID), bool)
    known[4:8, 6:12] = False
    out = outputs()
    truth = TargetBatch.collate([target(BOXES, NAMES, known=known)])
    total(detection_loss(out, truth, STRIDE)).backward()
    for v in out.values():
        assert (v.grad[..., 4:8, 6:12] == 0).all()
    assert (out["types"].grad[..., :4, :] != 0).all()


def test_pixels_the_unknown_half_alone_sees_get_no_gradient_through_the_network():
    torch.manual_seed(0)
    network = CellDetector("lcnet_035", KINDS, 8).eval()
    image = torch.rand(1, 3, SIZE, SIZE) * 255
    out = network(image)
    for v in out.values():
        v.retain_grad()
    truth = TargetBatch.collate([target([[4.0, 4.0, 20.0, 20.0]], known=known_left_half())])
    total(detection_loss(out, truth, STRIDE)).backward()
    for v in out.values():
        assert (v.grad[..., GRID // 2 :] == 0).all() and v.grad.abs().sum() > 0


def test_an_image_known_to_be_empty_is_a_lesson_too():
    out = outputs(batch=2)
    truth = TargetBatch.collate([target([]), target(BOXES, NAMES)])
    terms = detection_loss(out, truth, STRIDE)
    total(terms).backward()
    assert all(t.isfinite() for t in terms.values())
    assert (out["types"].grad[0] > 0).all()  # down with every score
    assert (out["boxes"].grad[0] == 0).all()
    alone = detection_loss(outputs(), TargetBatch.collate([target([])]), STRIDE)
    assert alone["object_type"] > 0 and alone["box"] == 0 and alone["edge"] == 0


def test_nothing_known_at_all_is_no_lesson():
    out = outputs()
    nothing = target(BOXES, NAMES, known=np.zeros((GRID, GRID), bool))
    terms = detection_loss(out, TargetBatch.collate([nothing]), STRIDE)
    total(terms).backward()
    assert all(t.item() == 0 for t in terms.values())
    assert all((v.grad == 0).all() for v in out.values())


def test_a_cell_of_weight_zero_has_no_influence():
    """Padding is one; a batch with more of it gives the same loss."""
    plain = detection_loss(outputs(), TargetBatch.collate([target(BOXES, NAMES)]), STRIDE)
    ghost = target([*BOXES, [2.0, 40.0, 16.0, 16.0]], [*NAMES, 1], [1, 1, 0])
    other = detection_loss(outputs(), TargetBatch.collate([ghost]), STRIDE)
    assert numbers(other) == numbers(plain)


def test_weight_says_how_much_a_cell_counts_against_others():
    def pull(weight):
        out = outputs()
        truth = TargetBatch.collate([target(BOXES, NAMES, [1, weight])])
        detection_loss(out, truth, STRIDE)["box"].backward()
        return float(out["boxes"].grad[..., 9:12, 10:13].abs().sum())

    assert 0 < pull(0.2) < pull(1.0)


def assignment(boxes, distances, kinds=None, scores=None, **more):
    points = locations(GRID, GRID, STRIDE, torch.device("cpu"))
    scores = torch.full((1, GRID * GRID, KINDS), 0.1) if scores is None else scores
    truth = TargetBatch.collate([target(boxes, kinds)])
    return assign(scores, boxes_at(distances, points), points, truth, **more), points


def test_cells_take_their_best_locations_inside_them_only():
    (x, y, w, h) = box = [8.0, 8.0, 24.0, 24.0]
    found, points = assignment([box], torch.full((1, GRID * GRID, 4), 12.0))
    mine = points[found.positive[0]]
    assert len(mine) == 10
    assert ((mine > torch.tensor([x, y])) & (mine < torch.tensor([x + w, y + h]))).all()
    # All predict 24 x 24: the nearer to the middle, the better the overlap.
    inside = ((points > x) & (points < x + w)).all(1)
    distance = (points - 20).abs().sum(1)
    assert distance[found.positive[0]].max() <= distance[inside & ~found.positive[0]].min() + 4
    assert float(found.quality.max()) == pytest.approx((22 * 22) / (2 * 24**2 - 22**2), abs=0.01)
    assert (found.quality[~found.positive] == 0).all()


def test_score_decides_among_equal_boxes():
    box = [8.0, 8.0, 24.0, 24.0]
    points = locations(GRID, GRID, STRIDE, torch.device("cpu"))
    exact = torch.cat([points - 8, 32 - points], 1)[None]
    scores = torch.full((1, GRID * GRID, KINDS), 0.1)
    favourite = int((points - torch.tensor([10.0, 30.0])).abs().sum(1).argmin())
    scores[0, favourite, 0] = 0.9
    found, _ = assignment([box], exact, scores=scores, top_k=1)
    assert found.positive[0].nonzero().flatten().tolist() == [favourite]


def test_a_location_two_cells_want_goes_to_the_one_it_overlaps_most():
    boxes = [[8.0, 8.0, 40.0, 40.0], [20.0, 20.0, 16.0, 16.0]]
    points = locations(GRID, GRID, STRIDE, torch.device("cpu"))
    small = torch.cat([points - 20, 36 - points], 1)
    large = torch.cat([points - 8, 48 - points], 1)
    inside = ((points > 20) & (points < 36)).all(1)
    found, _ = assignment(boxes, torch.where(inside[:, None], small, large)[None], top_k=300)
    assert (found.index[0][inside] == 1).all()
    ring = ((points > 8) & (points < 48)).all(1) & ~inside
    assert (found.index[0][ring] == 0).all()
    assert torch.equal(found.positive[0], inside | ring)


@pytest.mark.parametrize("corner", [0.0, 1.0, 2.0, 3.3])
def test_a_cell_of_eight_pixels_is_learnt_though_nothing_overlaps_it_yet(corner):
    box = [16 + corner, 24 + corner, 8.0, 8.0]
    found, _ = assignment([box], torch.full((1, GRID * GRID, 4), 0.01))
    assert 1 <= int(found.positive.sum()) <= 4
    out = outputs()
    truth = TargetBatch.collate([target([box])])
    terms = detection_loss({**out, "boxes": out["boxes"] * 0 + 30}, truth, STRIDE)
    assert terms["box"] > 0.1


def test_collate_pads_and_turns_sizes_into_corners():
    batch = TargetBatch.collate([target([]), target(BOXES, NAMES)])
    assert batch.corners.shape == (2, 2, 4) and batch.weights.tolist() == [[0, 0], [1, 1]]
    assert batch.corners[1, 0].tolist() == [8, 8, 32, 32]
    assert batch.type_ids[1].tolist() == NAMES
    assert batch.to(torch.device("cpu")).known.all()
