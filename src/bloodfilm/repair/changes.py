"""What a repair did, and which findings are to be repaired."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bloodfilm.core.arrays import Json
from bloodfilm.core.findings import Finding


@dataclass(frozen=True)
class Change:
    """One change of a label file.

    Attributes:
        rule: by which it was made.
        file: the label or image file of the finding.
        annotation: that was changed, as the label file identifies it; empty if it was more.
        action: what was done, for people.
        before, after: what stood there, and what stands there now.
        message: of the finding that was repaired.
        confidence: of that finding.
    """

    rule: str
    file: str
    annotation: str
    action: str
    before: Any
    after: Any
    message: str
    confidence: float

    @classmethod
    def of_finding(
        cls, finding: Finding, rule: str, annotation: str, action: str, values: tuple[Any, Any]
    ) -> "Change":
        """Return a change made for a finding; `values` are those before and after."""
        before, after = values
        confidence = round(finding.confidence, 3)
        message = finding.message
        return cls(rule, finding.file, annotation, action, before, after, message, confidence)

    def to_json(self) -> Json:
        """Return plain data."""
        return {k: getattr(self, k) for k in self.__dataclass_fields__}


@dataclass(frozen=True)
class RepairPlan:
    """Which findings are to be repaired.

    Attributes:
        rule_of: rule by the code of the findings it repairs.
        min_confidence: findings of less are left.
    """

    rule_of: Mapping[str, str]
    min_confidence: float

    def rule(self, finding: Finding) -> str | None:
        """Return the rule for a finding; `None` if it is to be left."""
        # How alike two pictures are is no measure of how certain it is that they are the same.
        certain = finding.confidence >= self.min_confidence or finding.code == "identical-fields"
        return self.rule_of.get(finding.code) if certain else None
