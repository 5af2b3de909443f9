"""What is, or may be, wrong: a code for programs, a message for people."""

from collections.abc import Iterable, Iterator, Mapping
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


@dataclass(frozen=True)
class IssueCodes:
    """The codes of one subject, each with its severity and what it means.

    >>> listed = IssueCodes({"cut-by-edge": ("info", "the box touches the edge of the field")})
    >>> listed.issue("cut-by-edge", "cut by the edge of the field", side="left").severity
    'info'
    """

    entries: Mapping[str, tuple[Severity, str]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def severity(self, code: str) -> Severity:
        """Return the severity of a code."""
        return self.entries[code][0]

    def meaning(self, code: str) -> str | None:
        """Return what a code means; `None` for one that is not listed."""
        return self.entries[code][1] if code in self.entries else None

    def issue(self, code: str, message: str, **data: Any) -> Issue:
        """Return an issue with the severity of its code."""
        return Issue(code, self.severity(code), message, data)


def codes(issues: Iterable[Issue]) -> frozenset[str]:
    """Return the codes that occur."""
    return frozenset(issue.code for issue in issues)


def messages(issues: Iterable[Issue]) -> tuple[str, ...]:
    """Return what is said, in order."""
    return tuple(issue.message for issue in issues)
