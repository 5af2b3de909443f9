"""Exact binomial limits and tests, for counts of a few hundred cells."""

import math
from collections.abc import Callable

_STEPS = 80


def binomial_cdf(count: int, total: int, share: float) -> float:
    """Return the probability of at most `count` successes in `total`, each of probability `share`.

    >>> round(binomial_cdf(1, 3, 0.5), 6)
    0.5
    """
    if count < 0:
        return 0.0
    if count >= total or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    log_p, log_q = math.log(share), math.log1p(-share)
    terms = (
        math.exp(_log_choose(total, k) + k * log_p + (total - k) * log_q) for k in range(count + 1)
    )
    return min(1.0, math.fsum(terms))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def exact_limits(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact confidence limits of a share (Clopper & Pearson, Biometrika 26, 1934).

    These are the limits of Rümke's table for differential counts (Triangle 4, 1960), for any
    number of cells; (0, 1) of nothing.

    >>> [round(100 * limit) for limit in exact_limits(5, 100)]
    [2, 11]
    """
    if total <= 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else _solve(lambda p: 1 - binomial_cdf(count - 1, total, p) < tail)
    high = 1.0 if count == total else _solve(lambda p: binomial_cdf(count, total, p) > tail)
    return low, high


def _solve(is_below: Callable[[float], bool]) -> float:
    """Return where a condition that holds up to a share ceases to hold."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def exact_test(one: int, of_one: int, two: int, of_two: int) -> float:
    """Return the two-sided p-value that two counts come from one share (Fisher's exact test).

    >>> round(exact_test(8, 10, 1, 10), 4)
    0.0055
    """
    together, total = one + two, of_one + of_two
    least, most = max(0, together - of_two), min(together, of_one)
    whole = _log_choose(total, together)
    logs = [
        _log_choose(of_one, k) + _log_choose(of_two, together - k) - whole
        for k in range(least, most + 1)
    ]
    seen = logs[one - least]
    return min(1.0, math.fsum(math.exp(v) for v in logs if v <= seen + 1e-7))
