"""How detector, stain and verification become one score."""

import numpy as np
import pytest

from bloodfilm.inference.fusion import EvidenceLimits, LogisticFusion, ProductFusion

WIDE = EvidenceLimits(probability=(0.01, 0.99999), contrast=(0.02, 0.5), unknown_contrast=0.5)
FUSIONS = {
    "product": ProductFusion(),
    "detector alone": ProductFusion(contrast=0, verification=0),
    "logistic": LogisticFusion(1.6, 0.7, 2.4, 1.2),
    "without verification": LogisticFusion(0.8, 0.0, 0.0, -0.5),
    "wide limits": LogisticFusion(1.6, 0.1, 2.4, 1.2, WIDE),
}
SCORES = np.array([0.0, 0.01, 0.1, 0.4, 0.8, 0.999, 1.0])
CONTRASTS = np.array([0.0, 0.01, 0.05, 0.1, 0.3, 0.6, 5.0])


@pytest.fixture(params=FUSIONS.values(), ids=FUSIONS.keys())
def fusion(request):
    return request.param


def test_scores_rise_with_each_piece_of_evidence(fusion):
    by_score = fusion.before_verification(SCORES, np.full(len(SCORES), 0.2))
    by_contrast = fusion.before_verification(np.full(len(CONTRASTS), 0.5), CONTRASTS)
    by_verification = [fusion.verified(0.6, p) for p in (0.0, 0.02, 0.3, 0.9, 1.0)]
    for values in (by_score, by_contrast, by_verification):
        assert (np.diff(values) >= 0).all()
        assert min(values) >= 0 and max(values) <= 1


def test_verification_only_lowers_a_score(fusion):
    before = fusion.before_verification(SCORES, np.full(len(SCORES), np.nan))
    for score in before.tolist():
        assert fusion.verified(score, 0.2) <= score
        assert fusion.verified(score, 1.0) == pytest.approx(score, abs=1e-9)


def test_an_undefined_contrast_takes_nothing(fusion):
    unknown = fusion.before_verification(SCORES, np.full(len(SCORES), np.nan))
    high = fusion.before_verification(SCORES, np.full(len(SCORES), 0.6))
    assert unknown == pytest.approx(high, abs=1e-3)


@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.9])
def test_no_detection_below_the_lowest_score_can_reach_the_threshold(fusion, threshold):
    lowest = fusion.lowest_detector_score(threshold)
    scores = np.linspace(0, 1, 1001)
    reached = fusion.before_verification(scores, np.full(len(scores), np.nan)) >= threshold
    assert not reached[scores < lowest].any()
    assert reached[scores > lowest + 1e-9].all()


def test_the_logistic_fusion_is_a_sum_of_evidence():
    fusion = LogisticFusion(detector=1.5, verification=0.5, contrast=2.0, bias=0.25)
    score = fusion.verified(
        float(fusion.before_verification(np.array([0.3]), np.array([0.1]))[0]), 0.7
    )
    expected = 1.5 * np.log(3 / 7) + 0.5 * np.log(7 / 3) + 2.0 * np.log(0.1) + 0.25
    assert score == pytest.approx(1 / (1 + np.exp(-expected)))


def test_limits_say_how_much_a_dark_nucleus_and_a_sure_classifier_count():
    narrow, wide = (
        LogisticFusion(1.5, 0.1, 2.5, 1.0, limits) for limits in (EvidenceLimits(), WIDE)
    )

    def score(fusion, contrast, probability):
        (before,) = fusion.before_verification(np.array([0.2]), np.array([contrast]))
        return fusion.verified(float(before), probability)

    # Taken for a red cell by the detector, dark, and surely a nucleated cell to the classifier.
    assert score(narrow, 0.7, 0.9999) == score(narrow, 0.2, 0.99)
    more = 2.5 * np.log(0.5 / 0.2) + 0.1 * (np.log(0.9999 / 0.0001) - np.log(0.99 / 0.01))
    odds = [s / (1 - s) for s in (score(narrow, 0.7, 0.9999), score(wide, 0.7, 0.9999))]
    assert odds[1] / odds[0] == pytest.approx(np.exp(more))
    assert score(wide, 0.1, 0.9) == pytest.approx(score(narrow, 0.1, 0.9))


def test_an_unknown_contrast_may_count_as_less_than_the_darkest():
    fusion = LogisticFusion(1.5, 0.1, 2.5, 1.0, EvidenceLimits(contrast=(0.02, 0.5)))
    unknown, pale, dark = fusion.before_verification(np.full(3, 0.4), np.array([np.nan, 0.2, 0.5]))
    assert unknown == pale < dark
    lowest = fusion.lowest_detector_score(0.5)
    assert fusion.before_verification(np.array([lowest + 1e-9]), np.array([0.6])) >= 0.5


@pytest.mark.parametrize(
    "limits",
    [
        {"score": (0.9, 0.1)},
        {"probability": (0.0, 0.9)},
        {"probability": (0.1, 1.0)},
        {"contrast": (0.2, 0.2)},
        {"contrast": (0.3, 0.5)},
        {"unknown_contrast": 0.9},
    ],
)
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(ValueError, match=r"score|probability|contrast"):
        EvidenceLimits(**limits)


def test_the_product_fusion_halves_a_score_at_its_contrast():
    fusion = ProductFusion(contrast=0.06, verification=0.5)
    (score,) = fusion.before_verification(np.array([0.8]), np.array([0.06]))
    assert score == pytest.approx(0.4)
    assert fusion.verified(0.4, 0.25) == pytest.approx(0.2)


@pytest.mark.parametrize("weights", [(0, 1, 1), (1, -0.1, 1), (1, 1, -0.1)])
def test_evidence_that_speaks_against_itself_is_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        LogisticFusion(*weights, bias=0)
