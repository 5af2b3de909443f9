"""Repair: what is certain goes, the rest stays and is listed, the original is not touched."""

import hashlib
import json

import pytest

from bloodfilm.audit import Options, audit, open_source
from bloodfilm.core import ConfigError, DataError
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset
from bloodfilm.repair import RULES
from fixtures.repairing import repair
from formats.test_lld import json_set


def digest(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return [(str(p), hashlib.sha1(p.read_bytes()).hexdigest()) for p in files]


@pytest.fixture(scope="module")
def repaired(faulty, tmp_path_factory):
    out = tmp_path_factory.mktemp("repaired") / "out"
    before = digest(faulty.root)
    result = repair(faulty.source, faulty.findings, out)
    assert digest(faulty.root) == before
    return out, result


def test_what_was_certain_is_gone(faulty, repaired):
    out, _ = repaired
    kinds = {f.code for f in audit(open_source(out), Options(pixels=False))}
    gone = {
        "exact-repeat",
        "same-cell-twice",
        "zero-size",
        "outside",
        "sliver",
        "stray-code",
        "id-and-name-differ",
        "repeated-image-entry",
        "patient-leak",
    }
    assert not kinds & gone
    assert {"two-classes", "missing-image", "odd-file-name"} <= kinds


def test_every_change_is_logged_and_the_rest_listed(repaired):
    out, result = repaired
    lines = [json.loads(line) for line in (out / "changes.jsonl").read_text().splitlines()]
    assert len(lines) == len(result.changes) > 8
    assert {line["rule"] for line in lines} <= set(RULES)
    assert all(line["file"] and line["action"] and line["message"] for line in lines)
    left = [json.loads(line) for line in (out / "left.jsonl").read_text().splitlines()]
    assert {"two-classes", "missing-image", "odd-file-name"} <= {line["code"] for line in left}
    assert all(line["severity"] != "info" for line in left)


def test_the_copy_reads_as_lld_with_its_images(repaired):
    dataset = open_dataset(repaired[0])
    assert len(dataset) > 10
    assert not [p for p in messages(dataset.issues) if "over the image" in p or "no area" in p]


def test_text_labels_follow(faulty, repaired):
    out, _ = repaired
    repeat = next(p for p in faulty.injected if p.code == "exact-repeat")
    (before,) = (faulty.root / "H_40X_C2" / "txt_labels").rglob(f"{repeat.image.stem}.txt")
    (after,) = (out / "H_40X_C2" / "txt_labels").rglob(f"{repeat.image.stem}.txt")
    assert (before.parent.name, after.parent.name) == ("train", "test")  # its patient leaked
    before, after = before.read_text().splitlines(), after.read_text().splitlines()
    assert len(set(before)) < len(before)
    assert len(set(after)) == len(after)


def test_a_rule_can_be_switched_off(faulty, tmp_path):
    out = tmp_path / "out"
    result = repair(faulty.source, faulty.findings, out, off=["exact-repeats"])
    assert "exact-repeats" not in {c.rule for c in result.changes}
    assert "exact-repeat" in {f.code for f in result.left}


def test_findings_of_less_confidence_are_left(faulty, tmp_path):
    result = repair(faulty.source, faulty.findings, tmp_path / "o", min_confidence=1.0)
    assert "no-nucleus" not in {c.rule for c in result.changes}
    assert "no-nucleus" in {f.code for f in result.left}


def test_bad_requests_are_refused(faulty, tmp_path):
    with pytest.raises(ConfigError, match="no rule 'x'"):
        repair(faulty.source, [], tmp_path / "a", off=["x"])
    with pytest.raises(DataError, match="lies in the original"):
        repair(faulty.source, [], faulty.root / "sub")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        repair(faulty.source, [], tmp_path / "full")


def test_labels_in_a_zip_are_repaired_unpacked(faulty_set, tmp_path):
    before = digest(faulty_set.root)
    out = tmp_path / "out"
    result = repair(faulty_set.source, faulty_set.findings, out)
    assert digest(faulty_set.root) == before
    assert not list(out.rglob("*.zip"))
    assert (out / "L_100X_C2" / "json_labels" / "train.json").is_file()
    rules = {c.rule for c in result.changes}
    assert {"orphans", "leaks", "stray-codes", "patch-order"} <= rules
    kinds = {f.code for f in audit(open_source(out), Options(pixels=False))}
    assert not kinds & {"orphan", "patient-leak", "stray-code"}
    again = open_dataset(out)
    assert {f.domain.name for f in again} == {"H/40X/C2", "L/100X/C2"}


@pytest.mark.parametrize(
    ("categories", "renumbered"),
    [
        (((1, "lymphoblast"), (2, "myeloblast")), True),
        (((1, "myeloblast"), (1, "lymphoblast")), False),  # which is meant?
        (((1, "lymphoblast"), (2, "platelet")), False),  # two classes would become one
    ],
)
def test_ids_are_renumbered_only_where_no_class_is_lost(tmp_path, categories, renumbered):
    annotations = [{"category_id": 1}, {"category_id": 2, "bbox": [300, 300, 60, 60]}]
    root = json_set(tmp_path / "set", annotations, categories=categories)
    source = open_source(root)
    findings = audit(source, Options(pixels=False))
    result = repair(source, findings, tmp_path / "out")
    assert [c.rule for c in result.changes] == ["names"] * renumbered
    assert ("id-and-name-differ" in {f.code for f in result.left}) != renumbered
    before, after = open_dataset(root), open_dataset(tmp_path / "out")
    assert [c.label for c in after[0].cells] == [c.label for c in before[0].cells]
