"""Stray light is distinguished from nuclei and red cells, and not found in clear pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.core.errors import DataError
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.imaging.canonical import CanonicalView, canonical_view, view_of
from bloodfilm.imaging.corrections import MAX_VEILING_GLARE, Corrections, estimate_corrections, lift
from bloodfilm.imaging.scale import ScalePrior, measure, pool
from imaging.cameras import hazy, nucleus, vignetted
from imaging.drawing import field

WHITE = (210, 200, 205)


def film(seed: int = 0, nuclei: int = 2) -> np.ndarray:
    image = field(white=WHITE, ink=(175, 145, 150), seed=seed)
    for i in range(nuclei):
        nucleus(image, 200 + 220 * i, 330 - 60 * i, 75)
    return image


def test_a_clear_picture_has_no_stray_light() -> None:
    image = film()
    look, _ = estimate_corrections(image)
    assert look.plain
    assert look.apply(image) is image


@pytest.mark.parametrize("veiling_glare", [0.4, 0.55])
def test_haze_is_found_and_taken_away(veiling_glare: float) -> None:
    image = hazy(film(), WHITE, veiling_glare)
    look, _ = estimate_corrections(image)
    # Down to what nuclei let through in a clear picture, not down to black.
    assert 0.1 < look.veiling_glare <= min(veiling_glare, MAX_VEILING_GLARE)
    before = np.percentile(image, 0.2) / np.array(WHITE).mean()
    after = np.percentile(look.apply(image), 0.2) / np.array(look.white_point).mean()
    assert after < before - 0.08
    assert look.white_point == pytest.approx(WHITE, abs=3)


def test_strong_red_cells_are_enough_to_know_a_picture_is_clear() -> None:
    image = field(white=WHITE, ink=(120, 80, 95))
    assert estimate_corrections(image)[0].veiling_glare == 0


def test_bare_glass_tells_nothing() -> None:
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(WHITE, 2, (300, 400, 3)), 0, 255).astype(np.uint8)
    assert estimate_corrections(image)[0].veiling_glare == 0


def test_a_folder_limits_what_a_hazier_field_claims() -> None:
    fields = [measure(hazy(film(seed), WHITE, 0.4)) for seed in range(6)]
    pooled = pool(fields)
    paler = measure(hazy(film(9), WHITE, 0.6))
    assert paler.corrections.veiling_glare > pooled.light.max_veiling_glare > 0
    assert view_of(paler, ScalePrior(pooled=pooled)).veiling_glare == pooled.light.max_veiling_glare
    assert view_of(paler).veiling_glare == paler.corrections.veiling_glare


def test_without_a_nucleus_nothing_is_taken_away() -> None:
    assert estimate_corrections(hazy(film(nuclei=0), WHITE, 0.2))[0].veiling_glare == 0


def test_lift_keeps_the_glass() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    drawn = lift(ramp, (200.0, 200.0, 200.0), 0.3, (200.0, 200.0, 200.0))
    assert drawn[0, 200, 0] == 200
    assert drawn[0, 60, 0] == 0
    assert (np.diff(drawn[0, :, 0].astype(int)) >= 0).all()
    assert (lift(ramp, (200.0, 200.0, 200.0), 0.0, (200.0, 200.0, 200.0)) == ramp).all()


def test_windows_show_what_the_whole_view_shows() -> None:
    image = hazy(vignetted(film()), WHITE, 0.3)
    view = canonical_view(image)
    assert view.illumination.method == "field"
    whole = view.render(image, 0.175)
    (crop,) = view.crops(image, [(320, 320)], 128, 0.175)
    x, y = (round(v) for v in view.to_canonical([[320, 320, 1, 1]], 0.175)[0, :2])
    part = whole[y - 64 : y + 64, x - 64 : x + 64].astype(int)
    assert np.abs(part - crop).mean() < 4
    assert np.median(whole, axis=(0, 1)) == pytest.approx((245, 245, 245), abs=25)


def test_the_record_holds_the_whole_correction() -> None:
    image = hazy(vignetted(film()), WHITE, 0.5)
    view = canonical_view(image)
    record = ViewRecord.from_json(json.loads(json.dumps(view.record().to_json())))
    assert record == view.record()
    again = CanonicalView.from_record(record)
    assert again == replace(view, issues=())
    assert (again.render(image) == view.render(image)).all()
    assert isinstance(again.corrections, Corrections) and not again.corrections.plain


def test_records_of_earlier_versions_are_read() -> None:
    record = canonical_view(film()).record().to_json()
    for key in ("illumination", "veiling_glare", "round_field", "ruler"):
        del record[key]
    view = CanonicalView.from_record(ViewRecord.from_json(record))
    assert view.corrections.plain


@pytest.mark.parametrize("broken", [{"round_field": [1, 2]}, {"ruler": "thumb"}])
def test_broken_records_are_refused(broken: dict[str, object]) -> None:
    record = canonical_view(film()).record().to_json()
    with pytest.raises(DataError, match="view"):
        ViewRecord.from_json({**record, **broken})
