"""Every attribute can be measured on the rendered cell, whatever its class."""

import cv2
import numpy as np
import pytest

from bloodfilm.core import LLD_SCHEMA
from bloodfilm.core.field import Cell
from bloodfilm.synthetic import MORPHOLOGIES, SIZE_BINS, render_cell
from bloodfilm.synthetic.morphology import typical_attributes, white_cell
from bloodfilm.synthetic.profiles import CHROMATIN, EOSIN, RNA
from bloodfilm.synthetic.rasterize_cells import paint_white

FORMS = ["myeloblast", "lymphocyte", "monocyte", "segmented neutrophil", "myelocyte"]
MORE = [*FORMS, "band neutrophil", "eosinophil", "basophil", "abnormal promyelocyte"]
SEEDS = range(3)


def patches(form, **attributes):
    """Painted cells of one class with some attributes fixed and the rest typical."""
    return [paint_white(white_cell(Cell(None, form, attributes), seed)) for seed in SEEDS]


def mean(measure, form, **attributes):
    return float(np.mean([measure(p) for p in patches(form, **attributes)]))


def ratio(patch):
    return (patch.nucleus > 0.5).sum() / (patch.cover > 0.5).sum()


def solidity(patch):
    mask = (patch.nucleus > 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(contours))
    return mask.sum() / cv2.contourArea(hull)


def holes(patch):
    """Share of the cytoplasm, well off the edges, that takes hardly any stain."""
    inner = cv2.erode((patch.cover > 0.95).astype(np.uint8), np.ones((7, 7))) > 0
    plasma = inner & (cv2.dilate(patch.nucleus, np.ones((7, 7))) < 0.05)
    total = patch.dyes.sum(axis=2)
    return (total[plasma] < 0.35 * np.median(total[plasma])).mean() if plasma.any() else 0.0


def clumping(patch):
    """Energy of the chromatin at 0.3-0.8 um, inside the nucleus."""
    amount = patch.dyes[..., CHROMATIN]
    band = cv2.GaussianBlur(amount, (0, 0), 3.5) - cv2.GaussianBlur(amount, (0, 0), 9)
    inner = cv2.erode((patch.nucleus > 0.9).astype(np.uint8), np.ones((15, 15))) > 0
    inner = inner if inner.any() else patch.nucleus > 0.9
    return float(band[inner].std())


def basophilia(patch):
    plasma = (patch.cover > 0.9) & (patch.nucleus < 0.05)
    return float(np.median(patch.dyes[plasma][:, RNA]))


def nucleolar(patch):
    """RNA in the nucleus: what makes a nucleolus blue."""
    return float((patch.dyes[..., RNA] * (patch.nucleus > 0.95)).max())


@pytest.mark.parametrize("form", FORMS)
def test_cell_size_orders_the_diameters(form):
    area = [
        mean(lambda p: (p.cover > 0.5).sum() * 0.08**2, form, cell_size=size)
        for size in ("small", "medium", "large")
    ]
    assert area[0] < area[1] < area[2]
    for value, size in zip(area, SIZE_BINS, strict=True):
        low, high = SIZE_BINS[size]
        assert low * 0.93 < 2 * np.sqrt(value / np.pi) < high * 1.07


@pytest.mark.parametrize("form", MORE)
def test_scanty_cytoplasm_means_a_higher_nuclear_share(form):
    scanty = mean(ratio, form, cytoplasm="scanty")
    abundant = mean(ratio, form, cytoplasm="abundant")
    assert scanty > abundant + 0.08


@pytest.mark.parametrize("form", MORE)
def test_irregular_nuclei_are_less_solid(form):
    regular = mean(solidity, form, nuclear_shape="regular")
    irregular = mean(solidity, form, nuclear_shape="irregular")
    assert regular > 0.93
    assert irregular < regular - 0.02


@pytest.mark.parametrize("form", ["monocyte", "monoblast", "myelocyte", "segmented neutrophil"])
def test_vacuoles_are_holes(form):
    prominent = mean(holes, form, cytoplasmic_vacuoles="prominent", cytoplasm="abundant")
    absent = mean(holes, form, cytoplasmic_vacuoles="absent", cytoplasm="abundant")
    assert prominent > 0.02
    assert prominent > 3 * absent


@pytest.mark.parametrize("form", FORMS)
def test_coarse_chromatin_is_clumped_at_a_larger_scale(form):
    fixed = {"nucleolus": "inconspicuous"}
    assert mean(clumping, form, nuclear_chromatin="coarse", **fixed) > 1.4 * mean(
        clumping, form, nuclear_chromatin="open", **fixed
    )


@pytest.mark.parametrize("form", ["myeloblast", "lymphoblast", "monoblast", "lymphocyte"])
def test_prominent_nucleoli_are_pale_blue_spots(form):
    seen = patches(form, nucleolus="prominent", cytoplasmic_basophilia="slight")
    none = patches(form, nucleolus="inconspicuous", cytoplasmic_basophilia="slight")
    assert min(map(nucleolar, seen)) > 1.5 * np.mean([nucleolar(p) for p in none])
    for patch, plain in zip(seen, none, strict=True):
        spot = (patch.dyes[..., RNA] > 0.3) & (patch.nucleus > 0.95)
        assert spot.sum() * 0.08**2 > 0.4  # um2
        assert patch.dyes[spot][:, CHROMATIN].mean() < 0.75 * np.median(
            plain.dyes[plain.nucleus > 0.95][:, CHROMATIN]
        )


@pytest.mark.parametrize("form", MORE)
def test_moderate_basophilia_takes_more_blue(form):
    moderate = mean(basophilia, form, cytoplasmic_basophilia="moderate")
    assert moderate > 1.3 * mean(basophilia, form, cytoplasmic_basophilia="slight")


@pytest.mark.parametrize("form", ["myeloblast", "monocyte", "atypical lymphocyte"])
def test_moderate_basophilia_is_darker_and_bluer_in_the_picture(form):
    red = {}
    for value in ("slight", "moderate"):
        image, truth = render_cell(
            form,
            {"cytoplasmic_basophilia": value, "cytoplasm": "abundant"},
            seed=3,
            size=256,
            um_per_px=None,
        )
        plasma = truth.mask(truth.visible.index(truth.white[0])) & ~truth.nuclei
        plasma = cv2.erode(plasma.astype(np.uint8), np.ones((5, 5))) > 0
        red[value] = np.median(image[plasma], axis=0)
    assert red["moderate"][0] < red["slight"][0] - 8  # blue stain takes the red light
    assert red["moderate"].sum() < red["slight"].sum()


def test_eosinophils_are_orange_and_nobody_else():
    orange = {f: np.mean([p.dyes[..., EOSIN].sum() for p in patches(f)]) for f in MORPHOLOGIES}
    assert orange.pop("eosinophil") > 0
    assert not any(orange.values())


def test_typical_attributes_follow_the_class_and_respect_what_is_given():
    rng = np.random.default_rng(0)
    drawn = [typical_attributes("lymphocyte", rng) for _ in range(200)]
    assert all(set(d) == set(LLD_SCHEMA.names) for d in drawn)
    assert np.mean([d["nuclear_chromatin"] == "coarse" for d in drawn]) > 0.9
    assert np.mean([d["cell_size"] == "small" for d in drawn]) > 0.75
    given = typical_attributes("lymphocyte", rng, {"cell_size": "large"})
    assert given["cell_size"] == "large"


@pytest.mark.parametrize("form", sorted(MORPHOLOGIES))
def test_any_class_takes_any_attributes(form):
    rng = np.random.default_rng(len(form))
    for _ in range(2):
        values = {a.name: str(rng.choice(a.values)) for a in LLD_SCHEMA.attributes}
        image, truth = render_cell(form, values, seed=1, profile="lld40x-like", size=96)
        assert image.shape == (96, 96, 3)
        assert dict(truth.white[0].cell.attributes) == values
