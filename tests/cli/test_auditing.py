"""`bloodfilm data audit|fix|split|stats` from files to exit codes."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.synthetic.lld_fixture.builder import FaultPlan
from bloodfilm.synthetic.lld_fixture.cell_faults import write_faulty_dataset


def run(*words):
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    root = tmp_path_factory.mktemp("set") / "bad"
    write_faulty_dataset(root, FaultPlan(faults=("exact repeat", "stray code", "sliver")))
    return root


def test_audit_writes_json_and_a_page_and_says_1(bad, tmp_path):
    page, listed = tmp_path / "a.html", tmp_path / "a.json"
    done = run("audit", bad, "--json", listed, "--html", page)
    assert done.exit_code == 1, done.stderr
    assert "exact-repeat" in done.stdout
    content = json.loads(listed.read_text())
    assert content["counts"]["error"] == 3
    assert {f["code"] for f in content["findings"] if f["severity"] == "error"} == {
        "exact-repeat",
        "stray-code",
        "sliver",
    }
    text = page.read_text()
    assert text.count("data:image/webp;base64,") >= 3
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text


def test_audit_without_errors_says_0_unless_strict(bad, tmp_path):
    assert run("fix", bad, "--out", tmp_path / "good", "--no-pixels").exit_code == 0
    done = run("audit", tmp_path / "good", "--no-pixels")
    assert done.exit_code == 0, done.stdout
    assert run("audit", tmp_path / "good", "--no-pixels", "--strict").exit_code == 1


def test_what_cannot_be_read_says_2(tmp_path):
    done = run("audit", tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_fix_refuses_before_it_looks(bad, tmp_path, monkeypatch):
    """What cannot be repaired is said at once, not after an audit of every picture."""
    import bloodfilm.audit

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(bloodfilm.audit, "audit", never)
    plain = tmp_path / "plain" / "neutrophil"
    plain.mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(plain / "a.png")
    for arguments, what in (
        ((tmp_path / "plain", "--out", tmp_path / "o"), "only labels of LLD's layout"),
        ((bad, "--out", bad / "o"), "lies in the original"),
        ((bad, "--out", tmp_path / "plain"), "is not empty"),
        ((bad, "--out", tmp_path / "o", "--no", "rust"), "no rule 'rust'"),
    ):
        words = ["data", "fix", *map(str, arguments)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2 and what in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_fix_lists_its_rules(bad, tmp_path):
    done = run("fix", bad, "--out", tmp_path, "--rules")
    assert "exact-repeats" in done.stdout and done.exit_code == 0


def test_split_writes_a_file_and_a_set(bad, tmp_path):
    done = run(
        "split",
        bad,
        "--out",
        tmp_path / "s.json",
        "--val-share",
        0,
        "--dataset",
        tmp_path / "d.json",
    )
    assert done.exit_code == 0, done.stderr
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["format"] == "bloodfilm-split"
    assert set(content["counts"]) == {"train", "test"}
    assert json.loads((tmp_path / "d.json").read_text())["format"] == "bloodfilm-dataset"
    refused = run("split", bad, "--out", tmp_path / "t.json", "--leave-patient-out", 77)
    assert refused.exit_code == 2 and not (tmp_path / "t.json").exists()


def test_stats_prints_and_draws(bad, tmp_path):
    done = run("stats", bad, "--html", tmp_path / "s.html", "--json", tmp_path / "s.json")
    assert done.exit_code == 0, done.stderr
    assert "diameter um" in done.stdout
    assert "<svg" in (tmp_path / "s.html").read_text()
    assert json.loads((tmp_path / "s.json").read_text())["fields"] == 9
