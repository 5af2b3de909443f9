"""The journal: what was written comes back, and a run that stopped can go on."""

import pytest

from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.results import FieldResult, ImageRef
from bloodfilm.inference.results_log import ResultsLog
from fixtures.made_up_results import make_failure, make_view

HEAD = {"bundle": {"sha256": "ab"}, "settings": {"paths": ["x"]}}


def field(name):
    return FieldResult(ImageRef(name, 640, 480, "ab"), make_view(640, 480), ())


def test_outcomes_come_back_in_order(tmp_path):
    with ResultsLog(tmp_path / "j", HEAD) as journal:
        journal.append(field("a.png"))
        journal.append(make_failure("b.png", "broken"))
        journal.append(field("ü.png"))
        fields = journal.fields
        assert (len(fields), journal.done) == (2, 3)
        assert [f.path for f in fields] == [fields[0].path, fields[-1].path] == ["a.png", "ü.png"]
        assert [f.path for f in fields[1:]] == ["ü.png"]
        assert journal.failures == [make_failure("b.png", "broken")]


@pytest.mark.parametrize("torn", [b"", b'{"field": {"ima', b'{"failure": {"image": "x"}}'])
def test_a_torn_last_line_is_dropped_and_the_run_goes_on(tmp_path, torn):
    path = tmp_path / "j"
    with ResultsLog(path, HEAD) as journal:
        journal.append(field("a.png"))
        journal.append(make_failure("b.png", "broken"))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with ResultsLog(path, HEAD, resume=True) as journal:
        assert (journal.done, len(journal.fields), len(journal.failures)) == (2, 1, 1)
        journal.append(field("c.png"))
        assert [f.path for f in journal.fields] == ["a.png", "c.png"]
    assert path.read_bytes().startswith(whole)


def test_another_run_is_not_taken_up(tmp_path):
    ResultsLog(tmp_path / "j", HEAD).close()
    with pytest.raises(ConfigError, match="differs in settings"):
        ResultsLog(tmp_path / "j", {**HEAD, "settings": {"paths": ["y"]}}, resume=True)


def test_damage_in_the_middle_and_an_empty_journal_are_refused(tmp_path):
    path = tmp_path / "j"
    ResultsLog(path, HEAD).close()
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    with pytest.raises(DataError, match="line 2 is damaged"):
        ResultsLog(path, HEAD, resume=True)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="nothing to go on from"):
        ResultsLog(path, HEAD, resume=True)
