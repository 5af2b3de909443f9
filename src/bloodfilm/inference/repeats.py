"""Images that occur more than once in a run: marked, with distinct cell identifiers."""

from collections import Counter
from dataclasses import replace

from bloodfilm.core import issue_codes
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.results import FieldFailure, FieldOutcome, FieldResult, with_ids


class RepeatedImages:
    """Finds results of images whose bytes were analysed before in the same run."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._met: Counter[str] = Counter()

    def add(self, result: FieldResult) -> int:
        """Take note of a result; return how often its image has been met, this time included."""
        checksum = result.image.sha256
        if not checksum:
            return 1
        self._first.setdefault(checksum, result.path)
        self._met[checksum] += 1
        return self._met[checksum]

    def check(self, result: FieldOutcome) -> FieldOutcome:
        """Take note of a result; return it with an issue and ids of its own if it is a repeat."""
        if isinstance(result, FieldFailure):
            return result
        times = self.add(result)
        if times == 1:
            return result
        first = self._first[result.image.sha256]
        message = f"identical to {first}: its cells are counted twice"
        repeat = issue(issue_codes.DUPLICATE_IMAGE, message, path=first)
        cells = with_ids(result.cells, f"{result.image.sha256} {times}")
        return replace(result, cells=cells, issues=(*result.issues, repeat))
