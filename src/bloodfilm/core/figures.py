"""Numbers of a JSON record: what is no number, or out of its range, is refused by its key."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bloodfilm.core.errors import DataError

_SHOWN = 40
MOST_PIXELS = 2**31 - 1
"""Of one side of an image."""
LEAST_UM, MOST_UM = 1e-4, 1e4
"""Micrometres per pixel: a tenth of a nanometre to a centimetre."""


def checked(value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """Return a finite number from `least` to `most`.

    Raises:
        ValueError: that tells value and range.

    >>> checked(7, 0, 1)
    Traceback (most recent call last):
    ValueError: 7, expected a number from 0 to 1
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_shown(value)}, expected a finite number")
    try:
        found = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{_shown(value)}, expected a finite number")
    if not least <= found <= most:
        raise ValueError(f"{found:g}, expected a number {_range(least, most)}")
    return found


def checked_whole(value: Any, least: int = 0, most: int = 2**63 - 1) -> int:
    """Return a whole number from `least` to `most`; `ValueError` as of `checked`.

    >>> checked_whole(3.0)
    3
    """
    found = checked(value, least, most)
    if found != int(found):
        raise ValueError(f"{found:g}, expected a whole number")
    return int(value)


def number(value: Any, key: str, least: float = -math.inf, most: float = math.inf) -> float:
    """Return a finite number from `least` to `most`.

    Raises:
        DataError: that names key, value and range.

    >>> number(2, "width_um")
    2.0
    """
    # Nearly all are such floats, and a run has millions: what is none of them is looked at closely.
    if type(value) is float and least <= value <= most and -math.inf < value < math.inf:
        return value
    try:
        return checked(value, least, most)
    except ValueError as error:
        raise DataError(f"{key}: {error}") from None


def numbers(values: Sequence[Any], key: str) -> Sequence[float]:
    """Return finite numbers; `DataError` as of `number` for the first that is none.

    >>> numbers([1.5, 2], "outline")
    [1.5, 2.0]
    """
    if set(map(type, values)) <= {float} and math.isfinite(sum(values)):
        return values
    return [number(value, key) for value in values]


def number_or_none(
    value: Any, key: str, least: float = -math.inf, most: float = math.inf
) -> float | None:
    """Return a finite number from `least` to `most`, or `None` for `null`."""
    return None if value is None else number(value, key, least, most)


def share(value: Any, key: str) -> float:
    """Return a score, probability or share: a number from 0 to 1."""
    if type(value) is float and 0.0 <= value <= 1.0:
        return value
    return number(value, key, 0, 1)


def shares(values: Mapping[Any, Any], key: str | None = None) -> dict[str, float]:
    """Return probabilities by name, all as of `share`.

    Args:
        values: by name.
        key: of all of them in messages; left out, each has its name.

    >>> shares({"yes": 0.25, "no": 1})
    {'yes': 0.25, 'no': 1.0}
    """
    given = values.values()
    plain = set(map(type, given)) <= {float} and set(map(type, values)) <= {str}
    # A NaN is neither smaller nor larger than any number, but spoils their sum.
    if plain and (not given or (min(given) >= 0.0 and max(given) <= 1.0 and sum(given) >= 0.0)):
        return dict(values)
    return {str(k): share(v, str(k) if key is None else key) for k, v in values.items()}


def whole(value: Any, key: str, least: int = 0, most: int = 2**63 - 1) -> int:
    """Return a whole number from `least` to `most`; `DataError` as of `number`."""
    try:
        return checked_whole(value, least, most)
    except ValueError as error:
        raise DataError(f"{key}: {error}") from None


def um_per_px(value: Any, key: str) -> float:
    """Return a pixel size, micrometres."""
    return number(value, key, LEAST_UM, MOST_UM)


def _shown(value: Any) -> str:
    try:
        return repr(str(value)[:_SHOWN])
    except ValueError:  # a whole number of thousands of digits
        return "a very long number"


def _range(least: float, most: float) -> str:
    if math.isinf(most):
        return f"of {least:g} or more"
    return f"of {most:g} or less" if math.isinf(least) else f"from {least:g} to {most:g}"
