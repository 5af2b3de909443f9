"""The differential as it is reported: corrected shares, blasts against 20 %, profiles."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.core.errors import DataError
from bloodfilm.core.results import AttributeResult, CellResult, ModelInfo
from bloodfilm.evaluation.confusion_correction import (
    METRIC,
    ClassConfusion,
    confusion_of,
    corrected_shares,
)
from bloodfilm.evaluation.film_differential import film_differential

TRUE = ("lymphocyte", "monocyte", "myeloblast")
NAMED = (*TRUE, "white cell")
RATES = np.array([[0.8, 0.05, 0.1, 0.05], [0.1, 0.7, 0.1, 0.1], [0.05, 0.05, 0.8, 0.1]])
MEASURED = ClassConfusion(TRUE, NAMED, RATES * 1000, ("one", "two"))


def cells(**counts):
    return [
        CellResult(
            (40.0 * k, 0, 30, 30),
            0.9,
            "nucleated cell",
            name.replace("_", " "),
            0.9,
            attributes={"cell_size": AttributeResult("large" if k % 2 else None, 0.6, {})},
        )
        for name, count in counts.items()
        for k in range(count)
    ]


def model(confusion=None, **changes):
    metrics = {} if confusion is None else {METRIC: confusion.to_json()}
    return ModelInfo({}, metrics=metrics, **changes)


def test_a_confusion_comes_back_and_a_damaged_one_is_refused():
    data = json.loads(json.dumps(MEASURED.to_json()))
    again = ClassConfusion.from_json(data)
    assert again.to_json() == data and again.sites == ("one", "two")
    assert confusion_of({}) is None
    for change in ({"counts": [[1]]}, {"named": None}, {"counts": -MEASURED.counts}):
        with pytest.raises(DataError, match="confusion: not the record of one"):
            ClassConfusion.from_json({**data, **change})


@pytest.mark.parametrize("true", [(0.6, 0.3, 0.1), (0.1, 0.0, 0.9), (0.0, 1.0, 0.0)])
def test_the_correction_finds_the_shares_that_were_there(true):
    expected = 100_000 * np.array(true) @ RATES
    counts = dict(zip(NAMED, expected.round().astype(int).tolist(), strict=True))
    found = corrected_shares(counts, MEASURED)
    named = np.array(true) * (1 - RATES[:, -1])  # the others stay open
    assert found.shares == pytest.approx(named, abs=0.02)
    for k, name in enumerate(TRUE):
        share, low, high = found.of([name])
        assert low - 1e-9 <= share <= high + 1e-9 and low <= named[k] + 0.03
    assert found.probability_above(TRUE, named.sum() - 0.02) == 1
    assert found.undecided == counts["white cell"]


def test_the_interval_holds_the_error_of_count_and_confusion():
    few, many = {"lymphocyte": 30, "myeloblast": 10}, {"lymphocyte": 3000, "myeloblast": 1000}
    rough = ClassConfusion(TRUE, NAMED, RATES * 20)

    def width(counts, confusion):
        _, low, high = corrected_shares(counts, confusion).of(["myeloblast"])
        return high - low

    assert width(many, MEASURED) < width(few, MEASURED)
    assert width(many, MEASURED) < width(many, rough)


def test_names_that_were_not_measured_are_counted_apart():
    found = corrected_shares({"lymphocyte": 5, "eosinophil": 3}, MEASURED)
    assert (found.counted, found.unmeasured) == (5, 3)
    assert corrected_shares({"eosinophil": 3}, MEASURED) is None


def test_cells_left_open_say_nothing_of_their_class():
    often_open = np.array([[900, 50, 50, 0], [0, 0, 100, 900], [10, 10, 980, 0]])
    confusion = ClassConfusion(TRUE, NAMED, often_open)
    found = corrected_shares({"white cell": 900, "lymphocyte": 90, "myeloblast": 10}, confusion)
    assert found.undecided == 900 and found.shares.sum() == pytest.approx(0.1)
    assert found.of(["monocyte"])[2] < 0.1


def test_a_class_that_was_not_measured_is_never_corrected_away():
    mature = ClassConfusion(
        ("lymphocyte", "neutrophil", "white cell"),
        ("granulocyte lineage", "lymphocyte", "myeloblast", "neutrophil", "white cell"),
        np.array([[0, 80, 15, 0, 5], [10, 0, 0, 90, 0], [2, 2, 2, 2, 2]]),
    )
    film = {"myeloblast": 60, "lymphocyte": 20, "neutrophil": 10, "blast": 10}
    found = corrected_shares(film, mature)
    assert found.measured == ("lymphocyte", "neutrophil")
    assert (found.counted, found.unmeasured, found.undecided) == (30, 70, 0)
    # 15 of 95 named lymphocytes are called myeloblast; the others of them are none.
    assert found.of(["lymphocyte"])[0] == pytest.approx(0.2 * 95 / 80, abs=0.01)
    assert found.of(["myeloblast"])[0] == pytest.approx(0.6 - 0.2 * 15 / 80, abs=0.01)
    assert found.of(["blast"])[0] == pytest.approx(0.1, abs=0.01)
    reported = film_differential(cells(**film), model(mature))
    assert "myeloblast" not in reported.corrected and reported.corrected_blasts is None
    assert reported.corrected["lymphocyte"].share == pytest.approx(0.2375, abs=0.01)


def test_a_new_film_errs_as_one_of_the_sites_does():
    sure, unsure = np.array([[95, 5], [5, 95]]), np.array([[60, 40], [40, 60]])
    pairs = [
        (site, TRUE[t], TRUE[n])
        for site, counts in (("one", sure), ("two", unsure))
        for t in range(2)
        for n in range(2)
        for _ in range(10 * counts[t, n])
    ]
    confusion = ClassConfusion.of_pairs([p[1:] for p in pairs], [p[0] for p in pairs])
    assert [c.tolist() for c in confusion.by_site] == (10 * np.stack([sure, unsure])).tolist()
    again = ClassConfusion.from_json(json.loads(json.dumps(confusion.to_json())))
    assert again.to_json() == confusion.to_json()
    pooled = ClassConfusion(confusion.true, confusion.named, confusion.counts, confusion.sites)
    film = {"lymphocyte": 700, "monocyte": 300}
    widths = []
    for known in (confusion, pooled):
        _, low, high = corrected_shares(film, known).of(["lymphocyte"])
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1]
    wrong = {**confusion.to_json(), "by_site": confusion.to_json()["by_site"][:1]}
    with pytest.raises(DataError, match="confusion: not the record of one"):
        ClassConfusion.from_json(wrong)


def test_a_film_is_corrected_where_the_bundle_measured_its_errors():
    film = cells(lymphocyte=120, monocyte=30, myeloblast=40, white_cell=10)
    plain, corrected = film_differential(film, model()), film_differential(film, model(MEASURED))
    assert plain.correction == "no-confusion" and plain.corrected == {}
    assert plain.blast.corrected_side == "unknown" and plain.corrected_blasts is None
    assert corrected.correction == "measured" and corrected.sites == ("one", "two")
    assert corrected.count.to_json() == plain.count.to_json()
    share = corrected.corrected["myeloblast"]
    assert share.low <= share.share <= share.high
    assert corrected.corrected_blasts == share
    assert share.share < 40 / 200  # some are lymphocytes and monocytes
    assert "white cell" not in corrected.corrected
    assert film_differential([], model(MEASURED)).correction == "nothing-counted"


@pytest.mark.parametrize(
    ("blasts", "others", "side"), [(80, 120, "above"), (5, 195, "below"), (21, 79, "undecided")]
)
def test_blasts_are_held_against_20_percent(blasts, others, side):
    found = film_differential(cells(myeloblast=blasts, neutrophil=others), model())
    assert (found.blast.side, found.blast.limit) == (side, 0.2)


def test_nothing_is_said_of_blasts_that_the_model_cannot_name():
    blasts = ("myeloblast", "abnormal promyelocyte", "monoblast", "promonocyte", "lymphoblast")
    found = film_differential(cells(neutrophil=100), model(untrained_classes=blasts))
    assert (found.blast.side, found.blast.corrected_side) == ("unknown", "unknown")
    assert "myeloblast" not in found.per_100
    some = film_differential(cells(neutrophil=100), model(untrained_classes=blasts[1:]))
    assert some.blast.side == "undecided" and some.blast.lower_limit
    over = film_differential(
        cells(myeloblast=80, neutrophil=20), model(untrained_classes=blasts[1:])
    )
    assert over.blast.side == "above"


def test_blasts_are_not_below_the_limit_where_open_cells_may_be_blasts():
    found = film_differential(cells(myeloblast=5, neutrophil=100, white_cell=95), model())
    assert found.blast.side == "undecided" and found.blast.most == 0.5
    few = film_differential(cells(myeloblast=5, neutrophil=185, white_cell=10), model())
    assert few.blast.side == "below" and few.blast.most == 0.075


def test_open_cells_are_counted_by_what_they_are_likely_to_be():
    likely = {"abnormal promyelocyte": 0.45, "lymphocyte": 0.35, "platelet clump": 0.2}
    some = [replace(c, probabilities=likely) for c in cells(white_cell=40)]
    kinds = {"monoblast": 0.4, "myeloblast": 0.2, "monocyte": 0.4}
    blasts = [replace(c, probabilities=kinds) for c in cells(blast=5)]
    found = film_differential([*some, *blasts, *cells(lymphocyte=10)], model())
    assert found.likely is not None
    # Of the name's classes alone: 0.45 / 0.8 of 40 cells, and each blast is one, whatever its kind.
    assert found.likely.blasts == pytest.approx(22.5 + 5)
    assert found.likely.cells["lymphocyte"] == pytest.approx(17.5 + 10)
    assert found.likely.cells["monoblast"] == pytest.approx(10 / 3)
    assert found.likely.cells["white cell"] == pytest.approx(55)
    top = found.likely.likeliest
    assert list(top) == ["abnormal promyelocyte"]
    assert top["abnormal promyelocyte"].cells == 40
    assert top["abnormal promyelocyte"].probability == pytest.approx(0.5625)
    assert found.count.undecided == 40 and found.undecided == {"white cell": 40}
    assert json.loads(json.dumps(found.to_json()))["likely"]["blasts"] == 27.5
    assert film_differential(cells(white_cell=40), model()).likely is None


def test_a_blast_is_of_no_kind_where_the_model_knows_one_kind_only():
    only = [replace(c, probabilities={"myeloblast": 0.9, "monocyte": 0.1}) for c in cells(blast=5)]
    assert film_differential(only, model()).likely is None


@pytest.mark.parametrize(("count", "reached"), [(99, 0), (100, 100), (399, 200), (400, 400)])
def test_adequacy_is_that_of_practice(count, reached):
    found = film_differential(cells(neutrophil=count), model(), wanted=100)
    assert (found.adequacy.reached, found.adequacy.enough) == (reached, count >= 100)


def test_profiles_and_abstentions_are_shown():
    found = film_differential(cells(lymphocyte=4, granulocyte_lineage=3), model())
    assert found.profiles["lymphocyte"]["cell_size"] == {"": 2, "large": 2}
    assert found.undecided == {"granulocyte lineage": 3}
    assert found.per_100["lymphocyte"] == pytest.approx(400 / 7)
    data = json.loads(json.dumps(found.to_json()))
    assert data["adequacy"]["enough"] is False and data["undecided"] == found.undecided
