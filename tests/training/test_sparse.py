"""Learning from regions: what must not learn does not, and a teacher's word is a target."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bloodfilm.core import Region
from bloodfilm.core.boxes import centres, clip
from bloodfilm.core.detections import Detections
from bloodfilm.losses.detection import detection_loss
from bloodfilm.losses.targets import Target, TargetBatch
from bloodfilm.models.detector import CellDetector
from bloodfilm.training import loop
from bloodfilm.training.callbacks import BaseCallback, StepInfo
from bloodfilm.training.config import SparseSection
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.data.copy_paste import CopyPasteSampler
from bloodfilm.training.data.mosaics import Mosaics
from bloodfilm.training.data.region_crops import cut_regions, repeat_rare_types
from bloodfilm.training.data.samplers import InMemorySampler
from bloodfilm.training.pseudo_labels import (
    Augmentation,
    PrecisionCalibrator,
    TeacherPrediction,
    pseudo_target,
    similarity_loss,
)
from bloodfilm.training.tasks.sparse import SparseTask, decode_outputs, teacher_predictions
from tiny import RUN, sparse_config

CPU = torch.device("cpu")
STRIDE = 4
TRIANGLE = Region.polygon([(20, 20), (150, 40), (60, 140)])
TWO = Region.union([Region.rect(10, 10, 60, 50), Region.rect(90, 70, 70, 80)])
REGIONS = {"rect": Region.rect(30, 20, 90, 100), "triangle": TRIANGLE, "two": TWO}


def field(region: Region, seed: int = 0, size: tuple[int, int] = (180, 170)) -> CanonicalField:
    """Dark discs on light ground; only those whose centre is in the region are marked."""
    rng = np.random.default_rng(seed)
    width, height = size
    image = np.full((height, width, 3), 240, np.uint8)
    boxes = []
    ys, xs = np.mgrid[:height, :width] + 0.5
    for _ in range(14):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(8, 18)
        image[(xs - x) ** 2 + (ys - y) ** 2 < r**2] = (120, 60, 140)
        boxes.append((x - r, y - r, 2 * r, 2 * r))
    boxes = np.array(boxes)
    kept = region.contains(boxes[:, :2] + boxes[:, 2:] / 2)
    return CanonicalField(
        image, boxes[kept], rng.integers(0, 3, kept.sum()), np.zeros((0, 4)), region
    )


@pytest.mark.parametrize("name", REGIONS)
def test_the_mask_follows_the_pixels_through_every_augmentation(name: str) -> None:
    region = REGIONS[name]
    painted = field(region)
    inside = region.mask(180, 170)
    painted = replace(painted, image=np.repeat(inside[..., None], 3, axis=2).astype(np.uint8) * 255)
    augment = sparse_config().augment
    for number in range(24):  # the eight orientations, and stretches, are drawn by chance
        mosaics = Mosaics([painted], 96, augment, seed=1)
        drawn = mosaics.draw((0, number))
        # A location's centre lies between four pixels: where they agree, the mask must too.
        grey = drawn.plain[..., 0].astype(int)
        four = np.stack([grey[dy::STRIDE, dx::STRIDE] for dy in (1, 2) for dx in (1, 2)])
        known = drawn.target.known
        assert known[(four > 247).all(0)].all()
        assert not known[(four < 8).all(0)].any()
        assert (drawn.unmarked == ~known).all()


def test_a_border_keeps_out_what_an_unmarked_cell_may_reach() -> None:
    plain = Mosaics([field(REGIONS["rect"])], 96, sparse_config().augment, seed=2)
    strict = Mosaics([field(REGIONS["rect"])], 96, sparse_config().augment, seed=2, border=6)
    lost = 0
    for number in range(6):
        a, b = plain.draw((0, number)), strict.draw((0, number))
        assert (a.image == b.image).all()
        assert not (b.target.known & ~a.target.known).any()
        lost += int((a.target.known & ~b.target.known).sum())
        x, y, w, h = a.target.boxes.T  # what is known in a marked box stays known
        for i in range(len(x)):
            box = np.s_[int(np.ceil(y[i] / 4)) : int((y[i] + h[i]) / 4)]
            across = np.s_[int(np.ceil(x[i] / 4)) : int((x[i] + w[i]) / 4)]
            inner = a.target.known[box, across]
            assert (b.target.known[box, across] == inner).all()
    assert lost > 0


@pytest.mark.parametrize("copies", [0.0, 4.0])
@pytest.mark.parametrize("name", [*REGIONS, "nothing"])
def test_supervised_terms_have_no_gradient_outside_the_region(name: str, copies: float) -> None:
    region = REGIONS.get(name, Region.nothing())
    marked = [field(region)]
    pool = CopyPasteSampler(marked, InMemorySampler(marked, None), copies)
    mosaics = Mosaics(pool, 64, sparse_config().augment, seed=3, border=6)
    drawn = [mosaics.draw((0, n)) for n in range(8)]
    torch.manual_seed(0)
    model = CellDetector(width=16)
    images = torch.from_numpy(np.stack([d.image for d in drawn])).permute(0, 3, 1, 2).float()
    outputs = model(images)
    for value in outputs.values():
        value.retain_grad()
    target = TargetBatch.collate([d.target for d in drawn])
    sum(detection_loss(outputs, target, STRIDE).values()).backward()  # type: ignore[union-attr]
    for value in outputs.values():
        assert value.grad is not None
        outside = ~target.known[:, None].expand_as(value.grad)
        assert (value.grad[outside] == 0).all()
    if name != "nothing":
        kinds = outputs["types"].grad
        assert kinds is not None
        inside = target.known[:, None].expand_as(kinds)
        assert (kinds[inside] != 0).all()


def test_what_lies_outside_the_region_changes_no_supervised_term() -> None:
    target = Target(
        np.array([[8, 8, 16, 16]], np.float32),
        np.array([0]),
        np.ones(1, np.float32),
        np.arange(256).reshape(16, 16) < 128,
    )
    batch = TargetBatch.collate([target])
    torch.manual_seed(0)
    kinds, boxes = torch.randn(1, 3, 16, 16), torch.rand(1, 4, 16, 16) * 16
    one = detection_loss({"types": kinds, "boxes": boxes}, batch, STRIDE)
    kinds, boxes = kinds.clone(), boxes.clone()
    kinds[..., 8:, :], boxes[..., 8:, :] = float("nan"), float("inf")
    other = detection_loss({"types": kinds, "boxes": boxes}, batch, STRIDE)
    assert {k: float(v) for k, v in one.items()} == {k: float(v) for k, v in other.items()}


def test_an_empty_region_of_a_field_is_a_negative() -> None:
    empty = replace(field(REGIONS["rect"]), boxes=np.zeros((0, 4)), type_ids=np.zeros(0, np.int64))
    task = SparseTask(sparse_config(teacher="none"), [empty], [], RUN)
    batch = task.samples.collate([task.samples.sample((0, n)) for n in range(2)])
    terms = task.losses(task.network.train(), batch, CPU)
    assert terms["object_type"].item() > 0
    assert terms["box"].item() == 0


def test_a_turn_and_its_way_back_cancel() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((64, 64, 3), np.uint8)
    image[8:20, 30:60] = 255
    values = rng.random((16, 16)).astype(np.float32)
    for code in range(8):
        turn = Augmentation(code)
        turned = turn.image(image)
        rows, columns = np.nonzero(turned[..., 0])
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        back = turn.boxes_back(np.array([box], dtype=float), 64.0)
        np.testing.assert_allclose(back, [[30, 8, 30, 12]])
        stacked = np.repeat(values[..., None], 3, axis=2)
        assert (turn.map_back(turn.image(stacked.view())[..., 0]) == values).all()  # type: ignore[arg-type]


def opinion(scores: list[float], highest: np.ndarray | None = None) -> TeacherPrediction:
    boxes = np.array([[4.0 + 20 * i, 4.0, 12, 12] for i in range(len(scores))]).reshape(-1, 4)
    found = Detections(boxes, np.array(scores), np.zeros(len(scores), np.intp))
    return TeacherPrediction(found, np.zeros((16, 16), np.float32) if highest is None else highest)


def test_pseudo_labels_lie_on_unmarked_ground_only() -> None:
    unmarked = np.zeros((16, 16), bool)
    unmarked[:, 4:] = True
    rules = SparseSection(background=1.0, confidence=0.5)
    target = pseudo_target(opinion([0.9, 0.8, 0.3]), unmarked, rules, None, STRIDE)
    assert target.boxes[:, 0].tolist() == [24.0]
    assert (target.known == unmarked).all()


def test_background_is_confirmed_where_no_kind_scores() -> None:
    highest = np.zeros((16, 16), np.float32)
    highest[8:] = 0.2
    rules = SparseSection(background=0.1)
    unmarked = np.ones((16, 16), bool)
    target = pseudo_target(opinion([], highest), unmarked, rules, None, STRIDE)
    assert target.known[:8].all()
    assert not target.known[8:].any()
    none = SparseSection(background=0.0)
    assert not pseudo_target(opinion([], highest), unmarked, none, None, STRIDE).known.any()


def test_reliability_is_what_marked_ground_proves() -> None:
    target = Target(
        np.array([[4, 4, 12, 12]], np.float32),
        np.array([0]),
        np.ones(1, np.float32),
        np.ones((16, 16), bool),
    )
    reliability = PrecisionCalibrator(3)
    before = reliability.precision(opinion([0.62, 0.61]).found)
    assert before == pytest.approx([0.625, 0.625])
    for _ in range(30):  # of two like detections one is always wrong
        reliability.learn([opinion([0.9, 0.61])], [target], STRIDE)
    right, wrong = reliability.precision(opinion([0.9, 0.61]).found)
    assert right > 0.95
    assert wrong < 0.2


def test_similarity_falls_as_cells_of_a_kind_come_together() -> None:
    places = torch.tensor([[0, 0, 0], [0, 0, 1]])
    kinds = torch.tensor([0, 1])
    pseudo, pseudo_kinds = torch.tensor([[0, 1, 0], [0, 1, 1]]), torch.tensor([0, 1])
    features = torch.tensor([[[[1.0, 0.0], [0.2, 0.8]], [[0.0, 1.0], [0.8, 0.2]]]])
    features.requires_grad_()
    bad = similarity_loss(features, places, kinds, pseudo, pseudo_kinds)
    bad.backward()
    assert features.grad is not None
    with torch.no_grad():
        better = similarity_loss(
            features - 0.1 * features.grad, places, kinds, pseudo, pseudo_kinds
        )
    assert better < bad
    swapped = torch.tensor([[[[1.0, 0.0], [0.8, 0.2]], [[0.0, 1.0], [0.2, 0.8]]]])
    assert similarity_loss(swapped, places, kinds, pseudo, pseudo_kinds) < bad
    assert similarity_loss(features, places[:0], kinds[:0], pseudo, pseudo_kinds) == 0


def test_patches_keep_their_cells_and_their_unknown_surroundings() -> None:
    source = field(TWO)
    patches = cut_regions(source, 5.0)
    assert len(patches) == 2
    empty = replace(source, boxes=np.zeros((0, 4)), type_ids=np.zeros(0, np.int64))
    first = cut_regions(empty, 5.0)[0]
    assert first.image.shape == (70, 80, 3)  # 10 px around, cut at the field's corner
    assert (first.image == source.image[:70, :80]).all()
    assert first.region.contains([[15.0, 15.0], [75.0, 65.0]]).tolist() == [True, False]
    sizes = {tuple(np.round(box[2:], 6)) for box in clip(source.boxes, 180, 170)}
    for patch in cut_regions(source, 0.0):  # no cell of the region is cut, but by the field's edge
        mine = patch.region.contains(centres(patch.boxes))
        assert all(tuple(np.round(box[2:], 6)) in sizes for box in patch.boxes[mine])
    assert sum(len(p.boxes) for p in patches) >= len(source.boxes)
    assert cut_regions(replace(source, region=Region.nothing()), 5.0) == []


def test_patches_with_rare_kinds_are_drawn_more_often() -> None:
    one = replace(field(REGIONS["rect"]), boxes=np.ones((1, 4)), type_ids=np.array([1]))
    rare = replace(one, type_ids=np.array([2]), repeat=2.0)
    empty = replace(one, boxes=np.zeros((0, 4)), type_ids=np.zeros(0, np.int64))
    found = [p.repeat for p in repeat_rare_types([one, one, one, one, rare, empty], 0.5)]
    assert found == pytest.approx([1, 1, 1, 1, 4, 1])
    assert [p.repeat for p in repeat_rare_types([one, rare], 0.0)] == [1, 2]


def fields() -> list[CanonicalField]:
    return [field(region, seed) for seed, region in enumerate(REGIONS.values())]


def test_the_teacher_sees_no_gradient_and_labels_only_the_rest() -> None:
    task = SparseTask(sparse_config(begin=0.0, patches=0.0, mix=0.0), fields(), [], RUN)
    teacher = CellDetector(width=16).requires_grad_(False)
    task.set_teacher(teacher)
    batch = task.samples.collate([task.samples.sample((0, n)) for n in range(2)])
    terms = task.losses(task.network.train(), batch, CPU)
    assert {"teacher_object_type", "teacher_box", "teacher_edge"} <= set(terms)
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert task.network.kind_head.weight.grad is not None


def test_turned_views_are_brought_back_to_the_same_opinion() -> None:
    """A detector that answers per pixel must say the same of an image however it is turned."""
    size = 64
    image = np.full((size, size, 3), 240, np.uint8)
    image[20:32, 36:56] = 40

    def outputs(turned: np.ndarray) -> dict[str, torch.Tensor]:
        rows, columns = np.nonzero(turned[..., 0] < 100)
        grid = (np.arange(16) + 0.5) * 4
        kinds = torch.full((1, 1, 16, 16), -9.0)
        inside = (grid[:, None] > rows.min()) & (grid[:, None] < rows.max() + 1)
        inside = inside & (grid > columns.min()) & (grid < columns.max() + 1)
        kinds[0, 0][torch.from_numpy(inside)] = 3.0
        x, y = np.meshgrid(grid, grid)
        sides = [x - columns.min(), y - rows.min(), columns.max() + 1 - x, rows.max() + 1 - y]
        return {"types": kinds, "boxes": torch.from_numpy(np.stack(sides))[None]}

    for code in range(8):
        turn = Augmentation(code)
        answer = outputs(turn.image(image))
        (found,) = teacher_predictions(answer, decode_outputs(answer, 4, 0.5), [turn], float(size))
        np.testing.assert_allclose(found.found.boxes, [[36, 20, 20, 12]])
        assert np.argwhere(found.highest > 0.5).min(axis=0).tolist() == [5, 9]


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["average", "student", "none"])
def test_a_stopped_run_goes_on_to_the_same_result(tmp_path: Path, teacher: str) -> None:
    settings = sparse_config(begin=0.0, patches=0.0, teacher=teacher, similarity=0.1)
    held = [field(Region.everything(), 9)]

    def run(out: Path, stop: bool) -> dict[str, torch.Tensor]:
        task = SparseTask(settings, fields(), held, RUN)

        class StopAtThird(BaseCallback):
            calls = 0

            def on_step(self, info: StepInfo) -> None:
                self.calls += 1
                if stop and self.calls == 3:
                    raise KeyboardInterrupt

        try:
            loop.train(task, settings, out, CPU, [StopAtThird()])
        except KeyboardInterrupt:
            loop.train(SparseTask(settings, fields(), held, RUN), settings, out, CPU)
        kept: dict[str, torch.Tensor] = loop.load_checkpoint(out / loop.LAST)
        return kept

    one, other = run(tmp_path / "one", False), run(tmp_path / "other", True)
    for part in ("model", "average", "memory"):
        for name, value in one[part].items():  # type: ignore[attr-defined]
            assert torch.equal(value, other[part][name]), (part, name)
