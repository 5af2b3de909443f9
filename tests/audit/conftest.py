"""One faulty and one clean set, rendered once for all tests of the audit."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from bloodfilm.audit import Finding, audit, open_source
from bloodfilm.audit.labels import Source
from bloodfilm.films.bed import BedPlan, Planted
from bloodfilm.films.faults import BOX_FAULTS, write_bed
from bloodfilm.films.setfaults import SET_FAULTS


@dataclass(frozen=True)
class Audited:
    """A rendered set, what was planted in it, and what the audit says."""

    root: Path
    plan: BedPlan
    planted: list[Planted]
    source: Source
    findings: list[Finding]


def _audited(root: Path, plan: BedPlan) -> Audited:
    planted = write_bed(root, plan)
    source = open_source(root)
    return Audited(root, plan, planted, source, audit(source))


@pytest.fixture(scope="session")
def faulty(tmp_path_factory) -> Audited:
    plan = BedPlan(subsets=("H_40X_C2", "H_100X_C1"), faults=tuple(BOX_FAULTS))
    return _audited(tmp_path_factory.mktemp("bed") / "faulty", plan)


@pytest.fixture(scope="session")
def faulty_set(tmp_path_factory) -> Audited:
    """Faults of whole fields and subsets; the second subset's labels are in a zip."""
    plan = BedPlan(
        subsets=("H_40X_C2", "L_100X_C2"),
        whites=5,
        sparse=True,
        empty=("L_10X_C1",),
        faults=tuple(SET_FAULTS),
    )
    return _audited(tmp_path_factory.mktemp("bed") / "faulty-set", plan)


@pytest.fixture(scope="session")
def clean(tmp_path_factory) -> Audited:
    return _audited(tmp_path_factory.mktemp("bed") / "clean", BedPlan())
