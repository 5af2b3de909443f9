"""One faulty and one clean set, rendered once for all tests of the audit."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from bloodfilm.audit import Finding, audit, open_source
from bloodfilm.audit.labels import Source
from bloodfilm.films.bed import BedPlan, Planted
from bloodfilm.films.faults import FAULTS, write_bed


@dataclass(frozen=True)
class Audited:
    """A rendered set, what was planted in it, and what the audit says."""

    root: Path
    planted: list[Planted]
    source: Source
    findings: list[Finding]


def _audited(root: Path, plan: BedPlan) -> Audited:
    planted = write_bed(root, plan)
    source = open_source(root)
    return Audited(root, planted, source, audit(source))


@pytest.fixture(scope="session")
def faulty(tmp_path_factory) -> Audited:
    plan = BedPlan(subsets=("H_40X_C2", "H_100X_C1"), faults=tuple(FAULTS))
    return _audited(tmp_path_factory.mktemp("bed") / "faulty", plan)


@pytest.fixture(scope="session")
def clean(tmp_path_factory) -> Audited:
    return _audited(tmp_path_factory.mktemp("bed") / "clean", BedPlan())
