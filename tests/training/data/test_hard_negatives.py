"""What the classifier learns not to take for a nucleated cell."""

import numpy as np
import pytest
import torch

from bloodfilm.core import Cell, Dataset, Domain, Field, Region
from bloodfilm.core.errors import ConfigError
from bloodfilm.training.calibration import calibrate_confirmation
from bloodfilm.training.config import DatasetConfig, HardNegativeSection, parse_config
from bloodfilm.training.data.canonical_fields import FieldLoader
from bloodfilm.training.data.cell_crops import plain_crop
from bloodfilm.training.data.crop_views import CropView
from bloodfilm.training.data.hard_negatives import load_hard_negatives, locate_hard_negatives
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.tasks.classifier import ClassifierTask, predict_nucleated
from fake_bundle import Disc, dark, draw, save
from tiny import STILL, VOCABULARY, config, silent, write_set

CPU = torch.device("cpu")
SECTION = HardNegativeSection(red_cells=3, empty=2, augment=STILL)
DISCS = {"path": "discs", "splits": ["train"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "discs", 4, 2)
    return folder


@pytest.fixture(scope="module")
def places(root):
    sourced = open_sources([DatasetConfig(path="discs", splits=("train",), repeat=0.5)], root)
    return load_hard_negatives(sourced, VOCABULARY, SECTION, 0, silent)


def test_every_nucleated_cell_some_red_ones_and_empty_places(places):
    assert len(places) == 4 * (2 + 3 + 2) and places.nucleated.sum() == 8
    assert (places.weights == 0.5).all() and np.isfinite(places.dyes).all()
    middles = np.array([plain_crop(i)[60:68, 60:68].mean((0, 1)) for i in places.images])
    assert (middles[places.nucleated, 0] < 100).all()
    red = (middles[:, 1] > 130) & (middles[:, 1] < 200)
    assert red.sum() >= 12  # an empty place may lie on a red cell's rim
    assert not (places.nucleated & red).any()


def test_places_are_chosen_by_the_seed_alone(root, places):
    sourced = open_sources([DatasetConfig(path="discs", splits=("train",))], root)
    assert (
        load_hard_negatives(sourced, VOCABULARY, SECTION, 0, silent).images == places.images
    ).all()
    assert (
        load_hard_negatives(sourced, VOCABULARY, SECTION, 1, silent).images != places.images
    ).any()


def test_only_what_is_known_is_looked_at(root):
    (first, *_) = open_sources([DatasetConfig(path="discs", splits=("train",))], root)
    field = FieldLoader(VOCABULARY, 0.14).load(first)
    width = field.image.shape[1]
    from dataclasses import replace

    left = replace(field, region=Region.rect(0, 0, width / 2, field.image.shape[0]))
    at, is_cell = locate_hard_negatives(left, VOCABULARY, SECTION, np.random.default_rng(0))
    assert (at[:, 0] < width / 2).all() and is_cell.sum() == 1
    assert len(
        locate_hard_negatives(field, VOCABULARY, SECTION, np.random.default_rng(0))[0]
    ) > len(at)


def test_a_picture_of_one_centred_cell_is_one_place(tmp_path):
    picture = save(tmp_path / "a.png", draw([Disc(20.0, 15.0, 12.0, dark("monocyte"))], (160, 120)))
    domain = Domain(um_per_px=0.25, pixel_aspect_ratio=1.0)

    def shown(label):
        item = Field(picture, 160, 120, cells=(Cell(None, label),), domain=domain)
        return SourcedField(item, Dataset("one", (item,)), 1.0)

    both = load_hard_negatives(
        [shown("monocyte"), shown("platelet")], VOCABULARY, SECTION, 0, silent
    )
    assert both.nucleated.tolist() == [True, False] and np.isnan(both.dyes).all()
    ys, xs = np.nonzero(plain_crop(both.images[0])[..., 0] < 120)
    assert abs(xs.mean() + 0.5 - 64) < 1 and abs(ys.mean() + 0.5 - 64) < 1
    with pytest.raises(ConfigError, match="other things"):
        load_hard_negatives([shown("monocyte")], VOCABULARY, SECTION, 0, silent)


def test_recolouring_changes_red_cells_and_leaves_nuclei_dark(places):
    hard = SECTION.model_copy(update={"augment": STILL.model_copy(update={"recolour": 1.0})})
    red = int(np.flatnonzero(~places.nucleated)[0])
    cell = int(np.flatnonzero(places.nucleated)[0])

    def middles(i):
        crops = [places.varied(i, np.random.default_rng(n), hard, CropView()) for n in range(12)]
        return np.array([crop[60:68, 60:68].mean() for crop in crops])

    assert np.ptp(middles(red)) > 2 * np.ptp(middles(cell))
    assert middles(cell).max() < middles(red).max() - 40


@pytest.fixture(scope="module")
def task(root):
    others = {
        "train": [DISCS],
        "validation": [{"path": "discs", "splits": ["val"]}],
        "augment": STILL.model_dump(),
    }
    data = config("classifier", hard_negatives=others, optim={"samples": None})
    return ClassifierTask.from_config(parse_config(data, "test"), root, silent)


def test_hard_negatives_supervise_the_verification_head_only(task):
    keys = task.samples.keys(0)
    assert sorted(i for _, i in keys) == list(range(len(task.train) + len(task.negatives)))
    samples = [task.samples.sample((0, i)) for _, i in keys]
    assert sum(not s.nucleated for s in samples) == (~task.negatives.nucleated).sum()
    told = [task.samples.sample((0, len(task.train) + i)) for i in range(len(task.negatives))]
    assert not any(s.allowed.any() or (s.codes >= 0).any() for s in told)
    terms = task.losses(task.network.train(), task.samples.collate(told[:8]), CPU)
    assert terms["nucleated"] > 0 and terms["class"] == 0 and terms["cell_size"] == 0
    assert task.record()["verifies"] and len(task.record()["sources"]["hard_negatives"]) == 2


def test_training_on_hard_negatives_lowers_their_loss(task):
    model = task.network.train()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    batch = task.samples.collate([task.samples.sample(k) for k in task.samples.keys(0)])
    losses = []
    for _ in range(8):
        loss = task.losses(model, batch, CPU)["nucleated"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval()
    logits = predict_nucleated(model, task.validation_negatives, CPU, CropView())
    assert logits.shape == task.validation_negatives.nucleated.shape
    accuracy = task.validate(model, CPU)["nucleated_accuracy"]
    right = (logits > 0) == task.validation_negatives.nucleated
    sides = (
        right[task.validation_negatives.nucleated],
        right[~task.validation_negatives.nucleated],
    )
    assert accuracy == pytest.approx(np.mean([side.mean() for side in sides]))
    temperature, metrics = calibrate_confirmation(
        model, task.validation_negatives, task.config.hard_negatives, CPU
    )
    assert temperature > 0 and 0 <= metrics["nucleated_accuracy"] <= 1


def test_places_on_both_sides_are_refused(root):
    others = {"train": [{"path": "discs"}]}
    with pytest.raises(ConfigError, match="in training and in validation"):
        ClassifierTask.from_config(
            parse_config(config("classifier", hard_negatives=others), "test"), root, silent
        )
