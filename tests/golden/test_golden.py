"""What the program gives for drawn inputs is what the golden records say.

After a wanted change: `python tests/golden/update.py --check` prints what differs, and
`python tests/golden/update.py` writes it; the change to the records belongs into the same commit.
"""

import json
from pathlib import Path

import pytest

from golden.cases import CASES, Workshop
from golden.compare import ANY, NUMBER, Tolerance, differences, to_text
from golden.running import read_json

EXPECTED = Path(__file__).parent / "expected"
UPDATE = "python tests/golden/update.py"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if c.slow else n for n, c in CASES.items()],
)
def test_the_same_as_the_golden_record(name: str, work: Workshop) -> None:
    case = CASES[name]
    now = json.loads(json.dumps(case.make(work)))
    found = differences(read_json(EXPECTED / f"{name}.json"), now, case.tolerance)
    assert not found, f"{len(found)} differences; if wanted, `{UPDATE} {name}`:\n" + "\n".join(
        found[:40]
    )


def test_every_record_has_its_case_and_all_are_small() -> None:
    files = sorted(EXPECTED.iterdir())
    assert [f.name for f in files] == sorted(f"{name}.json" for name in CASES)
    assert sum(f.stat().st_size for f in files) < 500_000
    for file in files:
        assert file.read_text(encoding="utf-8") == to_text(read_json(file)), UPDATE


@pytest.mark.parametrize(
    ("golden", "now"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {}),
        ({}, {"a": 1}),
        ([1, 2], [1]),
        (0.5, 0.52),
        (0.5, None),
        (NUMBER, "0.5"),
        (NUMBER, float("nan")),
        ({"box": [1.0, 2.0]}, {"box": [1.0, 2.6]}),
        ("12 cells", "13 cells"),
        ("12 cells", "12 boxes"),
        ("at 0.50 of it", "at 0.53 of it"),
        ("a", "b"),
    ],
)
def test_a_difference_is_found(golden: object, now: object) -> None:
    assert differences(golden, now, Tolerance(0.01, 0.01, {"box": 0.5}))


@pytest.mark.parametrize(
    ("golden", "now"),
    [
        (0.5, 0.505),
        (1000.0, 1009),
        (NUMBER, 3.5),
        (ANY, [1]),
        ({"box": [1.0, 2.0]}, {"box": [1.4, 2.0]}),
        ("at 0.50 of it", "at 0.505 of it"),
    ],
)
def test_what_is_near_is_the_same(golden: object, now: object) -> None:
    assert differences(golden, now, Tolerance(0.01, 0.01, {"box": 0.5})) == []
