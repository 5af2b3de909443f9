"""What is wrong in a label file, as data: readers report it, audits judge it, repairs act on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class LabelFault:
    """Something in a label file that cannot be used as it stands.

    Attributes:
        code: for programs, as those of findings: `orphan`, `unreadable-labels`.
        message: what is wrong, as a clause that follows the place: "has no file_name".
        place: where in the file: "annotation 5", "line 3"; empty for the file as a whole.
        outcome: what a reader does about it, as the end of its line: ", left out".
        advice: what to do about it.
        annotation: identity of the annotation, if it is about one.
        data: the facts the message states, as plain JSON values.
    """

    code: str
    message: str
    place: str = ""
    outcome: str = ", left out"
    advice: str = ""
    annotation: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
