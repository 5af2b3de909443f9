"""Splits: whole patients, shares kept, leaks refused, files read back."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.tables import row, table
from bloodfilm.core import ConfigError, DataError
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.splits.checks import check_split
from bloodfilm.splits.grouping import group_fields, place_of
from bloodfilm.splits.planning import SplitPlan, plan_split
from bloodfilm.splits.split_file import Split, apply_split, read_split

BOX = (10.0, 10.0, 50.0, 60.0)
CLASSES = ("monoblast", "neutrophil", "lymphocyte")


def cohort(patients=30, fields=4, split="train", subset="H_40X_C2"):
    listed = []
    for p in range(patients):
        for f in range(fields):
            cells = [(BOX, CLASSES[p % 3])] * 3
            one = row(f"{subset}/{p}_{f}.png", str(p), split, ("ALL", "AML")[p % 2], subset=subset)
            listed.append((one, cells))
    return table(*listed)


def of(made, t):
    return [made.splits[place_of(r.path)] for r in t.rows]


def test_shares_and_classes_are_kept():
    t = cohort()
    made = plan_split([t], SplitPlan(test_share=0.2, val_share=0.1))
    counted = Counter(of(made, t))
    assert counted["test"] == pytest.approx(24, abs=4)
    assert counted["val"] == pytest.approx(12, abs=4)
    for label in CLASSES:
        here = Counter(
            s
            for s, r in zip(of(made, t), t.rows, strict=True)
            if CLASSES[int(r.patient) % 3] == label
        )
        assert set(here) == {"train", "val", "test"}


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(4, 12))
def test_no_patient_is_ever_in_two_splits(seed, patients):
    tables = [cohort(patients, 2), cohort(patients, 3, subset="H_100X_C1")]
    made = plan_split(tables, SplitPlan(seed=seed))
    assert check_split(made, tables) == []
    where = {}
    for t in tables:
        for r, s in zip(t.rows, of(made, t), strict=True):
            assert where.setdefault(r.patient, s) == s


def test_the_same_seed_makes_the_same_split():
    t = cohort()
    assert plan_split([t], SplitPlan(seed=3)).splits == plan_split([t], SplitPlan(seed=3)).splits


def test_test_anywhere_is_test_everywhere():
    here = cohort(8, 2)
    there = table((row("H_100X_C1/5_9.png", "5", "test", subset="H_100X_C1"), [(BOX, "monoblast")]))
    made = plan_split([here, there], SplitPlan(test_share=0.1))
    assert {s for s, r in zip(of(made, here), here.rows, strict=True) if r.patient == "5"} == {
        "test"
    }


def test_common_glass_ties_patients_together():
    t = cohort(6, 1)
    assert len(set(group_fields([t]).tolist())) == 6
    groups = group_fields([t], [[(0, 3)]])
    assert groups[0] == groups[3] and len(set(groups.tolist())) == 5
    made = plan_split([t], SplitPlan(), [[(0, 3)]])
    assert of(made, t)[0] == of(made, t)[3]


def test_one_file_in_two_sets_is_tied_by_its_bytes(tmp_path):
    def one(name, content):
        (tmp_path / name).write_bytes(content)
        return table((row(str(tmp_path / name), None), []), name=name)

    tables = [one("a.png", b"same"), one("b.png", b"same"), one("c.png", b"none")]
    assert len(set(group_fields(tables).tolist())) == 3
    groups = group_fields(tables, [[], [], []]).tolist()
    assert groups[0] == groups[1] != groups[2]


def test_leave_a_patient_out():
    t = cohort(6, 2)
    made = plan_split([t], SplitPlan(leave_patient_out="4", val_share=0.2))
    assert {r.patient for r, s in zip(t.rows, of(made, t), strict=True) if s == "test"} == {"4"}
    assert "val" in of(made, t)
    with pytest.raises(ConfigError, match="no patient '99'"):
        plan_split([t], SplitPlan(leave_patient_out="99"))


def test_leave_a_domain_out_drops_its_patients_elsewhere():
    tables = [cohort(9, 2), cohort(9, 2, subset="H_100X_C1")]
    made = plan_split(tables, SplitPlan(leave_domain_out="H/100X/C1", test_share=0.3))
    near, far = of(made, tables[0]), of(made, tables[1])
    assert set(far) == {"test", None}
    assert set(near) <= {"train", "val", None} and "train" in near
    tested = {r.patient for r, s in zip(tables[1].rows, far, strict=True) if s == "test"}
    learnt = {r.patient for r, s in zip(tables[0].rows, near, strict=True) if s is not None}
    assert not tested & learnt
    with pytest.raises(ConfigError, match="no domain"):
        plan_split(tables, SplitPlan(leave_domain_out="L/10X/C1"))


def test_too_few_patients_are_refused():
    with pytest.raises(ConfigError, match="too few"):
        plan_split([cohort(2, 5)])


def test_shares_must_leave_a_train():
    with pytest.raises(ConfigError, match="leave a train"):
        SplitPlan(test_share=0.6, val_share=0.4)


def test_a_leaking_split_is_seen():
    t = cohort(4, 2)
    made = plan_split([t])
    broken = dict(made.splits)
    victim = next(p for p, s in broken.items() if s == "train")
    broken[victim] = "test"
    found = check_split(Split(broken, made.groups), [t])
    assert [f.code for f in found] == ["patient-leak"]
    found = check_split(Split({}, {}), [t])
    assert {f.severity for f in found} == {"warning"} and len(found) == 8


def test_tied_fields_apart_are_seen():
    t = cohort(6, 1)
    made = plan_split([t])
    places = of(made, t)
    apart = next((0, j) for j in range(6) if places[j] != places[0])
    assert [f.code for f in check_split(made, [t], [[apart]])] == ["overlapping-fields"]


def test_a_split_file_is_read_back_and_applied(clean, tmp_path):
    made = plan_split([clean.source.table], SplitPlan(val_share=0.0))
    file = tmp_path / "split.json"
    file.write_text(json.dumps(made.to_json(tmp_path)))
    again = read_split(file)
    assert again.splits == made.splits and again.groups == made.groups
    dataset = apply_split(open_dataset(clean.root), again)
    assert len(dataset) == len(clean.source.table.rows)
    save_dataset(dataset, tmp_path / "set.json", "bloodfilm")
    native = open_dataset(tmp_path / "set.json")
    assert Counter(f.split for f in native) == Counter(made.splits.values())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "bloodfilm-split", "version": 9}'])
def test_a_broken_split_file_is_one_line(tmp_path, text):
    file = tmp_path / "s.json"
    file.write_text(text)
    with pytest.raises(DataError, match=r"s\.json"):
        read_split(file)
