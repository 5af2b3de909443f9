"""Whatever a file holds, its reader reads it or says in one line why not, at little cost.

Every kind of file that others may have made is written once, validly, and read in a few thousand
changed forms: `make fuzz` draws as many as FUZZ_EXAMPLES says, anew each time.
"""

import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bloodfilm.core.errors import BloodfilmError
from fuzz.mutations import byte_changes, json_changes
from fuzz.targets import kinds, make

KINDS = tuple(kinds())
ASKED = os.environ.get("FUZZ_EXAMPLES")
EXAMPLES = max(1, int(ASKED or 2_000) // len(KINDS))
MOST_MEMORY = 1 << 30
"""By how much the peak of the process may grow while one kind of file is read."""
_JSON = ("coco", "bloodfilm", "label_studio", "qupath", "manifest.json", "split.json", "train.json")


def peak_memory() -> int:
    """Return the largest memory of this process so far, bytes; 0 where it is not known."""
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_is_read_or_refused_in_one_line(tmp_path, kind):
    target = make(kind, tmp_path)
    whole = target.file.read_bytes()
    target.read()
    structured = kind.endswith(_JSON) or kind == "result:result.json"
    changes = st.one_of(byte_changes(), json_changes()) if structured else byte_changes()
    before = peak_memory()

    @settings(
        max_examples=EXAMPLES,
        derandomize=ASKED is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changes)
    def check(change):
        target.file.write_bytes(change(whole))
        try:
            target.read()
        except BloodfilmError as error:
            assert str(error).strip() and len(str(error).splitlines()) == 1

    check()
    assert peak_memory() - before < MOST_MEMORY
