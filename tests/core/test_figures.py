"""Numbers of a record are taken as they are, or refused by their key."""

import math

import pytest

from bloodfilm.core.errors import DataError
from bloodfilm.core.figures import number, numbers, share, shares

NO_NUMBERS = [math.nan, math.inf, -math.inf, True, "1", None, [1.0], 10**400]


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_finite_number_is_refused_wherever_it_stands(value):
    for values in ([value, 0.5, 0.5], [0.5, value, 0.5], [0.5, 0.5, value]):
        with pytest.raises(DataError, match="outline: "):
            numbers(values, "outline")
        with pytest.raises(DataError, match="monocyte: "):
            shares({f"class {k}": v for k, v in enumerate(values)}, "monocyte")
    with pytest.raises(DataError, match="area: "):
        number(value, "area")
    with pytest.raises(DataError, match="score: "):
        share(value, "score")


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, 2, -1])
def test_what_is_no_share_is_refused_by_its_own_name(value):
    with pytest.raises(DataError, match="basophil: "):
        shares({"monocyte": 0.5, "basophil": value})
    with pytest.raises(DataError, match="score: "):
        share(value, "score")


def test_whole_numbers_become_floats():
    assert numbers([1, 2.5], "box") == [1.0, 2.5]
    assert [type(v) for v in numbers([1, 2.5], "box")] == [float, float]
    assert shares({"a": 1, "b": 0.0}) == {"a": 1.0, "b": 0.0}
    assert numbers([], "box") == [] and shares({}) == {}


def test_sums_beyond_the_largest_number_are_no_fault_of_their_terms():
    assert numbers([1e308, 1e308], "box") == [1e308, 1e308]
