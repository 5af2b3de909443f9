from pathlib import Path

import numpy as np
import pytest

from bloodfilm.core import DEFAULT_TAXONOMY, Cell, CellResult, Field
from bloodfilm.core.errors import ConfigError
from bloodfilm.evaluation.average_precision import collect, means
from bloodfilm.evaluation.class_granularity import parse_granularity
from bloodfilm.evaluation.detection import coco_scores, prepare
from bloodfilm.evaluation.intervals import group_fields, intervals, resamples

LEVEL = parse_granularity("three", DEFAULT_TAXONOMY)
KINDS = {"white cell": "nucleated cell", "red cell": "red cell", "platelet": "platelet"}


def sample(seed, n_fields):
    """Draw fields in which most cells are found, some loosely, and some boxes are false."""
    rng = np.random.default_rng(seed)
    fields, results = [], []
    for i in range(n_fields):
        boxes = np.concatenate([rng.uniform(0, 500, (12, 2)), rng.uniform(20, 60, (12, 2))], axis=1)
        labels = rng.choice(list(KINDS), 12, p=[0.2, 0.7, 0.1])
        cells = [Cell(tuple(b), str(k)) for b, k in zip(boxes[:9], labels[:9], strict=True)]
        found = boxes + rng.normal(0, 3, boxes.shape) * (rng.uniform(size=(12, 1)) < 0.7)
        found[:, 2:] = np.maximum(found[:, 2:], 5)
        scores = rng.uniform(size=12).round(2)
        results.append(
            [
                CellResult(tuple(b), float(s), KINDS[str(k)], str(k), 1.0)
                for b, s, k in zip(found, scores, labels, strict=True)
            ]
        )
        fields.append(Field(Path(f"{i}.png"), cells=tuple(cells), patient=str(i // 3)))
    return fields, results


@pytest.mark.parametrize("seed", range(4))
def test_point_equals_the_evaluator(seed):
    prepared = prepare(*sample(seed, 8), LEVEL)
    expected = coco_scores(prepared)
    value = means(collect(prepared))
    figures = (expected.ap, expected.ap50, expected.ap75, expected.ar, expected.recall50)
    np.testing.assert_allclose(value, figures, atol=1e-12)


def test_a_resample_equals_the_evaluator_on_repeated_fields():
    fields, results = sample(7, 6)
    weights = np.asarray([2, 0, 1, 3, 0, 1])
    often = [i for i, w in enumerate(weights) for _ in range(w)]
    again = prepare([fields[i] for i in often], [results[i] for i in often], LEVEL)
    value = means(collect(prepare(fields, results, LEVEL)), weights)
    # Equal scores of unlike fields may change places, so all but exactly.
    assert value[:2] == pytest.approx((coco_scores(again).ap, coco_scores(again).ap50), abs=0.01)


def test_interval_holds_the_value_and_is_seeded():
    fields, results = sample(3, 30)
    collected = collect(prepare(fields, results, LEVEL))
    groups, unit = group_fields(fields)
    assert unit == "patient"

    def run(seed):
        return intervals(lambda w: means(collected, w), groups, n=200, seed=seed)

    first = run(1)
    for one in first:
        assert one.low < one.value < one.high
    assert first == run(1)
    assert first != run(2)


def test_copies_of_one_field_are_one_group():
    metas = ({"twin": "1"}, {}, {"twin": "1"}, {"matched": "x"}, {})
    groups, unit = group_fields([Field(Path("a"), meta=m) for m in metas])
    assert groups[0] == groups[2]
    assert len(set(groups)) == 4
    assert unit.startswith("field")


def test_groups_stay_whole():
    groups = ["a", "b", "a", "c", "c", "c"]
    seen = set()
    for w in resamples(groups, 200, 0):
        assert w[0] == w[2]
        assert w[3] == w[4] == w[5]
        assert w[0] + w[1] + w[3] == 3
        seen.add((w[0], w[1], w[3]))
    assert len(seen) == 10


def test_interval_of_a_mean_is_as_wide_as_theory_says():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, 400)
    (one,) = intervals(lambda w: np.average(x, weights=w), range(400), n=2000, seed=0)
    assert one.high - one.low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.08)
    # The same items in clumps of equal ones are worth only as many as there are clumps.
    (clumped,) = intervals(
        lambda w: np.average(np.repeat(x[:100], 4), weights=w),
        np.repeat(np.arange(100), 4).tolist(),
        n=2000,
    )
    assert clumped.high - clumped.low > 1.7 * (one.high - one.low)


def test_undefined_resamples_are_counted():
    x = np.asarray([np.nan, 1.0])
    (one,) = intervals(lambda w: x[0] if w[0] > 1 else 1.0, ["a", "b"], n=100)
    assert 0 < one.undefined < 100
    assert (one.low, one.high) == (1.0, 1.0)


def test_one_group_has_no_interval():
    (one,) = intervals(lambda w: w.sum(), ["a", "a"], n=100)
    assert one.value == 2
    assert np.isnan(one.low)
    assert group_fields([Field(Path("a")), Field(Path("b"), patient="1")])[1].startswith(
        "patient w"
    )
    with pytest.raises(ConfigError):
        intervals(lambda w: 1.0, ["a"], level=2)
