"""Every injected fault is found where it was injected; a clean set gives no error."""

from pathlib import Path

import pytest

from bloodfilm.audit import CODES
from bloodfilm.core import ConfigError
from bloodfilm.core.boxes import iou
from bloodfilm.formats import open_dataset
from bloodfilm.synthetic.lld_fixture.builder import FaultPlan
from bloodfilm.synthetic.lld_fixture.cell_faults import BOX_FAULTS, write_faulty_dataset


def found(audited, injected):
    """Findings of the injected kind, at the injected place."""
    return [
        f
        for f in audited.findings
        if f.code == injected.code
        and injected.image in {Path(f.file), *map(Path, f.others)}
        and (injected.other is None or injected.other in {Path(f.file), *map(Path, f.others)})
        and (
            set(injected.annotations) <= set(f.annotations)
            or injected.code == "unmarked-white-cell"
        )
    ]


def test_every_fault_is_injected_and_found(faulty):
    assert len(faulty.injected) >= len(BOX_FAULTS)
    missed = [p for p in faulty.injected if not found(faulty, p)]
    assert missed == []


def test_the_finding_on_a_sure_fault_is_sure(faulty):
    sure = {"exact-repeat", "zero-size", "outside", "stray-code", "missing-image", "patient-leak"}
    for injected in faulty.injected:
        if injected.code in sure:
            assert max(f.confidence for f in found(faulty, injected)) >= 0.9


def test_a_clean_set_gives_no_error(clean):
    assert [f for f in clean.findings if f.severity == "error"] == []
    kinds = {f.code for f in clean.findings}
    assert kinds <= {
        "confounded",
        "few-patients",
        "cut-by-edge",
        "pixel-aspect-ratio",
        "not-checked",
    }


def test_each_finding_says_what_where_and_what_to_do(faulty):
    for f in faulty.findings:
        assert f.code in CODES
        assert f.message and f.advice and f.file
        assert 0 <= f.confidence <= 1


def test_overlaps_are_measured_to_the_pixel(faulty):
    data = {f.others[0]: f.data for f in faulty.findings if f.code == "overlapping-fields"}
    plain = next(facts for file, facts in data.items() if "1_51_" in file)
    turned = next(facts for file, facts in data.items() if "1_61_" in file)
    assert plain["shift_px"] == [37, 144] and not plain["turned"]
    assert turned["shift_px"] == [37, 144] and turned["turned"]


def test_an_unmarked_cell_is_shown_where_it_is(faulty):
    injected = next(p for p in faulty.injected if p.code == "unmarked-white-cell")
    clean_ids = {f.annotations for f in found(faulty, injected)}
    assert clean_ids
    assert all(f.boxes for f in found(faulty, injected))


def test_the_bed_reads_as_lld(clean):
    dataset = open_dataset(clean.root)
    assert dataset.issues == ()
    assert {f.domain.name for f in dataset} == {"H/40X/C2"}
    assert {f.split for f in dataset} == {"train", "test"}
    texts = open_dataset(clean.root, labels="AttriDet")
    by_name = {f.path.name: f for f in texts}
    for field in dataset:
        other = by_name[field.path.name]
        assert [c.label for c in field.cells] == [c.label for c in other.cells]
        for a, b in zip(field.cells, other.cells, strict=True):
            assert iou([a.box], [b.box])[0, 0] > 0.99


def test_an_unknown_fault_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no fault 'rust'"):
        write_faulty_dataset(tmp_path, FaultPlan(faults=("rust",)))
