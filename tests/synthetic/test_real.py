"""Rendered cells beside real ones: the same darkness, hue and nuclear area per class."""

import cv2
import numpy as np
import pytest

from bloodfilm.synthetic import PROFILES, render_cell

LOOK = PROFILES["pbc-like"]


def nucleus(image):
    """Nuclear area (um2) and its median optical density (R, G, B), of the dark centre."""
    density = -np.log10((image.astype(np.float32) + 1) / (np.array(LOOK.white) + 1))
    density = cv2.GaussianBlur(density, (0, 0), 1)
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    mask = (density[..., 1] > 0.42) & (np.hypot(x - width / 2, y - height / 2) < 80)
    return mask.sum() * LOOK.um_per_px**2, np.median(density[mask], axis=0)


@pytest.mark.parametrize(
    "label", ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"]
)
def test_nuclei_look_like_those_of_real_cells(label, real_data):
    paths = sorted((real_data / "pbc" / label).glob("*.webp"))[::60][:14]
    real = [nucleus(cv2.imread(str(p))[..., ::-1]) for p in paths]
    drawn = [nucleus(render_cell(label, seed=s, size=360, um_per_px=None)[0]) for s in range(10)]
    area = [np.median([a for a, _ in cells]) for cells in (real, drawn)]
    colour = [np.median([c for _, c in cells], axis=0) for cells in (real, drawn)]
    assert area[1] == pytest.approx(area[0], rel=0.3)
    assert np.allclose(colour[1], colour[0], atol=0.12)
