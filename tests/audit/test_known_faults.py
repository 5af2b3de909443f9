"""Every known fault of LLD: how it is injected, and by which check the audit finds it.

The numbers are those of the list of LLD's known faults; 0 is what its layout and codes add.
"""

from pathlib import Path

import pytest

from bloodfilm.audit import CODES
from bloodfilm.synthetic.lld_fixture.cell_faults import BOX_FAULTS, FAULTS
from bloodfilm.synthetic.lld_fixture.dataset_faults import SET_FAULTS
from synthetic.test_lld_fixture import found

TABLE = [
    # fault, injected as, found by
    (1, "repeated entries", "repeated-image-entry"),
    (2, "exact repeat", "exact-repeat"),
    (2, "same cell twice", "same-cell-twice"),
    (2, "two classes", "two-classes"),
    (3, "over a red cell", "no-nucleus"),
    (4, "sliver", "sliver"),
    (4, "near the edge", "cut-by-edge"),
    (4, "outside", "outside"),
    (4, "over the edge", "outside"),
    (4, "zero size", "zero-size"),
    (5, "overlap", "overlapping-fields"),
    (5, "overlap", "same-cell-in-two-fields"),
    (5, "overlap turned", "overlapping-fields"),
    (5, "duplicate field", "identical-fields"),
    (5, "renamed into test", "identical-fields"),
    (6, "patient leak", "patient-leak"),
    (6, "leak within", "patient-leak"),
    (7, "re-acquired", "reacquisition"),
    (8, "named none", "to-ignore"),
    (9, "unmarked", "unmarked-white-cell"),
    (10, "blurred", "blurred"),
    (10, "one slide", "one-slide"),
    (10, "few patients", "few-patients"),
    (10, "confounded", "confounded"),
    (0, "stray code", "stray-code"),
    (0, "text code", "stray-code"),
    (0, "id and name", "id-and-name-differ"),
    (0, "categories swapped", "id-and-name-differ"),
    (0, "missing image", "missing-image"),
    (0, "missing archive", "missing-image"),
    (0, "unreadable", "unreadable-image"),
    (0, "unlabelled", "unlabelled-image"),
    (0, "orphan", "orphan"),
    (0, "back-tick", "odd-file-name"),
    (0, "squeezed", "pixel-aspect-ratio"),
    (0, "empty subset", "empty-subset"),
    (0, "text class", "labels-differ"),
    (0, "text line", "unreadable-labels"),
    (0, "patch order", "patch-order"),
    (0, "patch nowhere", "patch-order"),
]


def test_the_table_names_every_fault_and_every_injection():
    assert {number for number, _, _ in TABLE} == set(range(11))
    assert {fault for _, fault, _ in TABLE} == set(FAULTS)
    assert {code for _, _, code in TABLE} <= set(CODES)


@pytest.mark.parametrize(("number", "fault", "code"), TABLE)
def test_a_known_fault_is_injected_and_found(request, number, fault, code):
    audited = request.getfixturevalue("faulty" if fault in BOX_FAULTS else "faulty_set")
    assert fault in (BOX_FAULTS if audited.plan.subsets[-1] == "H_100X_C1" else SET_FAULTS)
    injected = [p for p in audited.injected if p.fault == fault and p.code == code]
    assert injected
    assert [p for p in injected if not found(audited, p)] == []


def test_what_is_not_injected_in_a_set_of_faults_is_not_found(faulty_set):
    """No error but at the places where one was injected."""
    spoilt = {p.image for p in faulty_set.injected}
    for f in faulty_set.findings:
        if f.severity == "error":
            assert {Path(f.file), *map(Path, f.others)} & spoilt, f
