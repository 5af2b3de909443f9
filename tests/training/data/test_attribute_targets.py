"""Attributes in the sparse task: carried, masked, taught and scored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bloodfilm.core import Cell, Dataset, Field, Region
from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.detections import Detections
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.attribute_metrics import attribute_f1
from bloodfilm.training.config import Config
from bloodfilm.training.data.canonical_fields import CanonicalField, field_targets
from bloodfilm.training.data.mosaics import Mosaics
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.tasks.sparse import SparseTask
from tiny import RUN, VOCABULARY, sparse_config

CPU = torch.device("cpu")
WIDTH = LLD_SCHEMA.width


def config(**sparse: object) -> Config:
    return sparse_config(**{"attributes": 0.5, "patches": 0.0, "mix": 0.0, "begin": 0.0} | sparse)


def row(**codes: int) -> np.ndarray:
    values = np.zeros(WIDTH, np.float32)
    for name, code in codes.items():
        values[LLD_SCHEMA.slices[name].start + code] = 1
    return values


def field(values: np.ndarray | None, region: Region | None = None) -> CanonicalField:
    rng = np.random.default_rng(0)
    image = rng.integers(90, 240, (160, 160, 3)).astype(np.uint8)
    boxes = np.array([[30.0, 30, 40, 40], [90, 80, 40, 40]])
    return CanonicalField(
        image,
        boxes,
        np.array([0, 0]),
        np.zeros((0, 4)),
        region or Region.everything(),
        values=values,
    )


def test_values_come_from_labels_in_the_order_of_the_cells() -> None:
    cells = (
        Cell((0, 0, 9, 9), "red cell"),
        Cell((0, 0, 9, 9), None, ignore=True),
        Cell((5, 5, 9, 9), "neutrophil", {"cell_size": "large", "nuclear_shape": None}),
    )
    sourced = SourcedField(Field(Path("x.png"), cells=cells), Dataset("d", ()), 1.0)
    found = field_targets(sourced, VOCABULARY).values
    assert (found[0] == 0).all()
    assert (found[1] == row(cell_size=2)).all()


def test_values_go_with_their_cells_through_the_augmentation() -> None:
    values = np.stack([row(cell_size=0), row(cell_size=2)])
    tall = replace(field(values), boxes=np.array([[30.0, 30, 40, 40], [90, 70, 60, 60]]))
    mosaics = Mosaics([tall, replace(tall, values=None)], 96, config().augment, seed=1)
    seen = 0
    for number in range(12):
        target = mosaics.draw((0, number)).target
        if target.values is None:
            continue
        for box, said in zip(target.boxes, target.values, strict=True):
            if said.any():
                seen += 1
                if box[2:].min() > 26:  # whole: the larger of the two cells
                    assert (said == row(cell_size=2)).all()
    assert seen


@pytest.mark.parametrize("asymmetric", [False, True])
def test_only_marked_cells_teach_attributes(asymmetric: bool) -> None:
    """No gradient reaches the branch where nothing is said of a marked cell."""

    def gradient(values: np.ndarray | None) -> float:
        rules = config(asymmetric=asymmetric, teacher="none")
        task = SparseTask(rules, [field(values)], [], RUN)
        batch = task.samples.collate([task.samples.sample((0, n)) for n in range(2)])
        terms = task.losses(task.network.train(), batch, CPU)
        terms["attributes"].backward()
        assert task.network.attributes is not None
        return sum(
            float(p.grad.abs().sum()) for p in task.network.parameters() if p.grad is not None
        )

    assert gradient(None) == 0
    assert gradient(np.zeros((2, WIDTH), np.float32)) == 0
    assert gradient(np.stack([row(cell_size=0), row(nuclear_shape=1)])) > 0


def test_the_teacher_gives_attributes_to_unannotated_cells() -> None:
    class Sure(CellDetector):
        def heads(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
            out = super().heads(features)
            kinds = torch.full_like(out["types"], -9.0)
            kinds[:, 0, 5, 5] = 4.0
            return {"types": kinds, "boxes": torch.full_like(out["boxes"], 10.0)}

    nothing = replace(
        field(None, Region.rect(0, 0, 4, 4)), boxes=np.zeros((0, 4)), type_ids=np.zeros(0, np.int64)
    )
    for taught in (True, False):
        task = SparseTask(config(teacher_attributes=taught), [nothing], [], RUN)
        task.set_teacher(Sure(width=16, values=WIDTH).requires_grad_(False))
        batch = task.samples.collate([task.samples.sample((0, n)) for n in range(2)])
        terms = task.losses(task.network.train(), batch, CPU)
        assert terms["attributes"].item() == 0
        assert ("teacher_attributes" in terms) == taught
        if taught:
            assert terms["teacher_attributes"].item() > 0


def test_f1_counts_matched_cells_with_a_known_value() -> None:
    item = field(np.stack([row(cell_size=0, nuclear_shape=1), row(cell_size=2)]))
    found = Detections(
        np.array([[30.0, 30, 40, 40], [90, 80, 40, 40], [0, 0, 20, 20]]),
        np.array([0.9, 0.8, 0.7]),
        np.zeros(3, np.intp),
    )
    logits = np.stack([row(cell_size=0, nuclear_shape=0), row(cell_size=2), row(cell_size=1)])
    scores = attribute_f1([item], [found], [logits], VOCABULARY)
    assert scores == {"cell_size_f1": 1.0, "nuclear_shape_f1": 0.0, "attribute_f1": 0.5}
    missed = found.take(np.array([2]))
    assert attribute_f1([item], [missed], [logits[2:]], VOCABULARY) == {}
