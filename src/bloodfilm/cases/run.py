"""All cases of a run, from its results."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bloodfilm.cases.assembly import AssemblyOptions, CaseFiles, assemble_case
from bloodfilm.cases.grouping import CaseGroup
from bloodfilm.core import issue_codes
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.core.results import CaseResult, FieldFailure, FieldResult, ModelInfo


@dataclass(frozen=True)
class RunOutcomes:
    """The results of a run by the number of their image.

    Attributes:
        fields: results, in the order of the images.
        numbers: of each image with a result, the number of its field.
        failures: of each image without one, why.
        checksums: SHA-256 of the images with a result.
    """

    fields: Sequence[FieldResult]
    numbers: Mapping[int, int]
    failures: Mapping[int, FieldFailure]
    checksums: Mapping[int, str]


def assemble_cases(
    groups: Sequence[CaseGroup],
    outcomes: RunOutcomes,
    model: ModelInfo,
    options: AssemblyOptions | None = None,
    progress: Progress | None = None,
) -> tuple[CaseResult, ...]:
    """Take the fields of every case together, one case after the other: see `assemble_case`.

    Warnings about a case as a whole are reported, with its name.
    """
    progress = progress or NoProgress()
    shared = _shared_images(groups, outcomes)
    cases = []
    for group in groups:
        files = CaseFiles(
            name=group.name,
            numbers=tuple(outcomes.numbers[k] for k in group.images if k in outcomes.numbers),
            failures=tuple(
                outcomes.failures[k].path for k in group.images if k in outcomes.failures
            ),
            issues=(*group.issues, *shared.get(group.name, ())),
        )
        several = _CaseProgress(progress, group.name) if len(groups) > 1 else progress
        cases.append(assemble_case(files, outcomes.fields, model, options, several))
        for found in cases[-1].issues:
            if found.severity == "warning":
                progress.report(replace(found, message=f"case {group.name}: {found.message}"))
    return tuple(cases)


def _shared_images(
    groups: Sequence[CaseGroup], outcomes: RunOutcomes
) -> dict[str, tuple[Issue, ...]]:
    """Return an issue for each case that has an image in common with another one."""
    holders: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        for checksum in sorted({outcomes.checksums.get(k, "") for k in group.images} - {""}):
            holders[checksum].append(group.name)
    others: dict[str, set[str]] = defaultdict(set)
    images: dict[str, int] = defaultdict(int)
    for names in holders.values():
        if len(names) > 1:
            for name in names:
                others[name] |= set(names) - {name}
                images[name] += 1
    found: dict[str, tuple[Issue, ...]] = {}
    for name, with_ in others.items():
        listed = sorted(with_)
        message = f"{images[name]} of its images also in {', '.join(listed)}: whose are they?"
        facts = {"images": images[name], "cases": listed}
        found[name] = (issue(issue_codes.SHARED_IMAGE, message, **facts),)
    return found


@dataclass(frozen=True)
class _CaseProgress:
    """Passes everything on; a stage is called by its case, too."""

    progress: Progress
    name: str

    def update(self, stage: str, done: int, total: int | None) -> None:
        """Pass an update on."""
        self.progress.update(f"{self.name}: {stage}", done, total)

    def report(self, issue: Issue) -> None:
        """Pass an issue on."""
        self.progress.report(issue)

    def check_cancelled(self) -> None:
        """Raise `CancelledError` if the work should stop."""
        self.progress.check_cancelled()
