"""The outline network: drawn crops and masks that fit, a loss that falls, an exported bundle."""

import numpy as np
import pytest
import torch

from bloodfilm.core.errors import ConfigError
from bloodfilm.training.config import parse_config
from bloodfilm.training.data.drawn_outlines import (
    STORED,
    STORED_SHARE,
    draw_outline_crops,
    plain_crop,
    varied_crop,
)
from bloodfilm.training.tasks.outlines import OutlineSamples, OutlineTask
from tiny import silent

CPU = torch.device("cpu")


def config(**changes):
    data = {
        "task": "outlines",
        "outlines": {"cells": 24, "validation_cells": 6, "widths": [8, 12, 16]},
        "optim": {"epochs": 1, "batch": 8, "precision": "fp32"},
        "appearance": {"normalise": True},
    }
    return parse_config({**data, **changes}, "test.toml")


@pytest.fixture(scope="module")
def drawn():
    return draw_outline_crops(24, 1, silent)


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_drawn_crops_are_cut_by_their_cells_boxes(drawn):
    assert drawn.images.shape == (24, STORED, STORED, 3)
    assert drawn.masks.shape == (24, STORED, STORED, 2)
    for mask in drawn.masks:
        left, top, right, bottom = box_of(mask[..., 0] > 127)
        assert max(right - left, bottom - top) == pytest.approx(STORED * STORED_SHARE, abs=3)
        assert (left + right) / 2 == pytest.approx(STORED / 2, abs=2)
        assert (top + bottom) / 2 == pytest.approx(STORED / 2, abs=2)
        # A nucleus lies in its cell, and is darker than the glass around both.
        assert not ((mask[..., 1] > 200) & (mask[..., 0] < 50)).any()
    inside = drawn.masks[..., 1] > 200
    assert drawn.images[inside].mean() < drawn.images[drawn.masks[..., 0] == 0].mean() - 20


def test_the_same_seed_draws_the_same_cells(drawn):
    again = draw_outline_crops(5, 1, silent)
    assert (again.images == drawn.images[:5]).all() and (again.masks == drawn.masks[:5]).all()
    assert (draw_outline_crops(5, 2, silent).images != drawn.images[:5]).any()


def test_a_deformed_cell_is_cut_by_its_new_box(drawn):
    section = parse_config(
        {"task": "outlines", "outlines": {"stretch": 0.0, "shift": 0.0, "deform": 0.3}}, "t"
    ).outlines
    assert section.bend > 0 and section.bare > 0
    for i in range(6):
        rng = np.random.default_rng(i)
        stored = drawn.images[i], drawn.masks[i]
        crop, mask = varied_crop(*stored, rng, size=96, share=0.625, section=section)
        assert crop.shape == (96, 96, 3) and mask.shape == (96, 96, 2)
        left, top, right, bottom = box_of(mask[..., 0] > 127)
        assert max(right - left, bottom - top) == pytest.approx(60, abs=3)
        assert (left + right) / 2 == pytest.approx(48, abs=2.5)


def test_a_plain_crop_is_what_analysis_cuts(drawn):
    crop, mask = plain_crop(drawn.images[0], drawn.masks[0], size=96, share=0.625)
    left, top, right, bottom = box_of(mask[..., 0] > 127)
    assert max(right - left, bottom - top) == pytest.approx(60, abs=3) and crop.shape[0] == 96


def test_samples_depend_on_the_key_alone(drawn):
    samples = OutlineSamples(config(), drawn)
    first, second = samples.sample((3, 2)), samples.sample((3, 2))
    assert (first.crop == second.crop).all() and (first.masks == second.masks).all()
    assert (samples.sample((4, 2)).crop != first.crop).any()
    keys = samples.keys(0)
    assert sorted(i for _, i in keys) == list(range(24)) and len(set(samples.keys(1) + keys)) == 48


def test_the_nucleus_of_a_bare_cell_is_not_learnt(drawn):
    def known(bare):
        samples = OutlineSamples(config(outlines={"bare": bare}), drawn)
        return [samples.sample((0, i)).known for i in range(24)]

    assert set(known(0.0)) == {(True, True)}
    assert {(True, False), (True, True)} == set(known(1.0))
    task = OutlineTask(config(), OutlineSamples(config(outlines={"bare": 1.0}), drawn), drawn)
    batch = task.samples.collate([task.samples.sample((0, i)) for i in range(8)])
    unknown = ~batch.known[:, 1]
    assert unknown.any() and batch.known[:, 0].all()
    logits = torch.zeros_like(batch.masks, requires_grad=True)
    sum(task.losses(lambda _: logits, batch, CPU).values()).backward()
    steepest = logits.grad.abs().amax((2, 3))
    assert (steepest[unknown, 1] == 0).all() and (steepest[~unknown, 1] > 0).all()
    assert (steepest[:, 0] > 0).all()


def test_a_training_starts_from_the_weights_of_another(tmp_path):
    small = {"cells": 2, "validation_cells": 2, "widths": [8, 12]}
    first = OutlineTask.from_config(config(outlines=small), silent)
    place = tmp_path / "best.pt"
    torch.save({"model": first.network.state_dict()}, place)

    def start(**outlines):
        found = config(outlines={**small, **outlines}, model={"start": str(place)}, seed=5)
        return OutlineTask.from_config(found, silent).network.state_dict()

    for name, weights in first.network.state_dict().items():
        assert torch.equal(start()[name], weights)
    with pytest.raises(ConfigError, match=r"best\.pt: holds the weights of another network"):
        start(widths=[8, 16])


def test_the_loss_falls(drawn):
    task = OutlineTask(config(), OutlineSamples(config(), drawn), drawn)
    batch = task.samples.collate([task.samples.sample((0, i)) for i in range(8)])
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    sums = []
    for _ in range(12):
        terms = task.losses(task.model, batch, CPU)
        assert set(terms) == set(task.loss_weights)
        loss = terms["pixels"] + terms["dice"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sums.append(float(loss.detach()))
    assert sums[-1] < sums[0]
    metrics = task.validate(task.model.eval(), CPU)
    assert 0 <= metrics["nucleus_share_error"] <= 1 and task.score_name in metrics


def test_no_data_is_asked_for_but_normalised_colours_are():
    assert config().data.train == ()
    again = parse_config(config().model_dump(mode="json"), "run.json")
    assert again == config()
    with pytest.raises(ConfigError, match=r"appearance\.normalise"):
        OutlineTask(config(appearance={}), OutlineSamples(config(), DRAWN_NONE), DRAWN_NONE)


DRAWN_NONE = draw_outline_crops(0, 0, silent)
