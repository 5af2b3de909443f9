"""What is, or may be, wrong: a code for programs, a message for people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from bloodfilm.core.errors import DataError

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing a reader of a result or a data set should know.

    Attributes:
        code: what kind of issue, e.g. `low-sharpness`; stable, for programs.
        severity: `error` (the value is wrong), `warning` (look at it) or `info` (know it).
        message: one sentence for people; never parsed.
        data: the facts the message states, as plain JSON values.

    >>> str(Issue("cut-by-edge", "info", "cut by the edge of the field"))
    'cut by the edge of the field'
    """

    code: str
    severity: Severity
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    def to_json(self) -> dict[str, Any]:
        """Return the issue as plain data."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "data": dict(self.data),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Issue":
        """Read what `to_json` wrote; `DataError` if it is not an issue."""
        try:
            if data["severity"] not in SEVERITIES:
                raise ValueError(f"severity {data['severity']!r}")
            severity = cast(Severity, data["severity"])
            facts = dict(data.get("data", {}))
            return cls(str(data["code"]), severity, str(data["message"]), facts)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"issue: not a record of one ({error!r})") from None


def codes(issues: Iterable[Issue]) -> frozenset[str]:
    """Return the codes that occur."""
    return frozenset(issue.code for issue in issues)


def messages(issues: Iterable[Issue]) -> tuple[str, ...]:
    """Return what is said, in order."""
    return tuple(issue.message for issue in issues)
