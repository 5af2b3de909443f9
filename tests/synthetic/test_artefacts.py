"""What is no intact white cell: drawn, labelled, and told apart from what it is not."""

import numpy as np
import pytest

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.synthetic import (
    ARTEFACTS,
    DEBRIS_FORMS,
    RED_FORMS,
    SceneSpec,
    render_cell,
    render_field,
)
from bloodfilm.synthetic.rasterize_small_objects import paint_red
from bloodfilm.synthetic.render import render_cell_over

QUIET = {"red_density": 0.0, "platelet_density": 0.0, "debris_density": 0.0}


@pytest.mark.parametrize("name", ARTEFACTS)
def test_an_artefact_is_a_class_outside_the_nucleated_cells(name: str) -> None:
    assert DEFAULT_TAXONOMY.is_under(name, "other object")
    assert not DEFAULT_TAXONOMY.is_under(name, "nucleated cell")


@pytest.mark.parametrize("name", ARTEFACTS)
def test_a_drawn_artefact_is_labelled_where_it_lies(name: str) -> None:
    image, truth = render_cell(name, seed=3)
    (seen,) = truth.of_kind("artefact")
    x, y, w, h = seen.box
    assert seen.cell.label == name and not seen.cell.ignore
    assert abs(x + w / 2 - 64) < 20 and abs(y + h / 2 - 64) < 20
    low, high = ARTEFACTS[name][1]
    assert 0.4 * low < max(w, h) * 0.175 < 2.2 * high
    inside = image[int(y) : int(y + h), int(x) : int(x + w)].min(axis=(0, 1))
    assert (inside < np.median(image, axis=(0, 1)) - 5).any()
    assert not truth.white


def test_the_same_seed_draws_the_same_artefacts_and_another_draws_others() -> None:
    spec = SceneSpec(whites=1, artefacts=dict.fromkeys(ARTEFACTS, 1), **QUIET)
    first, again, other = (render_field(spec=spec, seed=s)[0] for s in (4, 4, 5))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_artefact_asked_for_is_in_the_truth_beside_the_white_cells() -> None:
    spec = SceneSpec(whites=2, artefacts={"smudge cell": 2, "stain deposit": 1}, **QUIET)
    _, truth = render_field("lld40x-like", spec, seed=1)
    labels = sorted(str(c.label) for c in truth.cells if DEFAULT_TAXONOMY.is_under(
        str(c.label), "other object"))  # fmt: skip
    assert labels == ["smudge cell", "smudge cell", "stain deposit"]
    assert len(truth.white) == 2


def test_red_cells_take_the_forms_asked_for() -> None:
    spec = SceneSpec(whites=0, red_density=9.0, red_forms={"spherocyte": 0.5, "target cell": 0.5})
    _, truth = render_field("lld40x-like", spec, seed=2)
    forms = {s.item.form for s in truth.of_kind("red")}
    assert forms == {"spherocyte", "target cell"}
    _, plain = render_field("lld40x-like", SceneSpec(whites=0, red_density=9.0), seed=2)
    assert {s.item.form for s in plain.of_kind("red")} == {""}


@pytest.mark.parametrize("seed", range(5))
def test_a_spherocyte_has_no_pallor_and_a_polychromatic_cell_takes_basic_dye(seed: int) -> None:
    round_one = paint_red(seed, 6.5, form="spherocyte")
    n = round_one.cover.shape[0]
    amount = round_one.dyes[..., 0]
    assert amount[n // 2, n // 2] > 0.8 * amount[round_one.cover > 0.99].mean()
    assert paint_red(seed, 8.5, form="polychromatic cell").dyes[..., 1].max() > 0.1


def test_fibres_and_crystals_are_drawn_and_are_no_cells() -> None:
    spec = SceneSpec(whites=0, debris_forms=dict.fromkeys(DEBRIS_FORMS, 3), **QUIET)
    image, truth = render_field("pbc-like", spec, seed=6)
    clean, _ = render_field("pbc-like", SceneSpec(whites=0, **QUIET), seed=6)
    assert not truth.visible
    assert np.abs(image.astype(int) - clean).max() > 20


@pytest.mark.parametrize(
    "spec",
    [
        SceneSpec(artefacts={"unicorn": 1}),
        SceneSpec(red_forms={"unicorn": 0.1}),
        SceneSpec(red_forms=dict.fromkeys(RED_FORMS, 0.5)),
        SceneSpec(debris_forms={"unicorn": 1}),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(spec: SceneSpec) -> None:
    with pytest.raises(ConfigError, match="known"):
        render_field(spec=spec)


@pytest.mark.parametrize("name", sorted(ARTEFACTS))
def test_an_artefact_drawn_over_a_photograph_darkens_its_middle_alone(name: str) -> None:
    ground = np.full((200, 240, 3), (210, 200, 190), np.uint8)
    image = render_cell_over(ground, name, seed=4, um_per_px=0.2)
    assert image.shape == ground.shape and (image <= ground).all()
    assert (image[60:140, 80:160] < ground[60:140, 80:160]).any()
    edges = (image[:8], image[-8:], image[:, :8], image[:, -8:])
    assert all(np.abs(part.astype(int) - (210, 200, 190)).max() <= 1 for part in edges)
