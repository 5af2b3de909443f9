"""What every test may use: real data where there is some, and the same random numbers each run."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from bloodfilm.cli.progress import TerminalProgress

pytest_plugins = ["fixtures.faulty_sets", "fixtures.made_up_results"]

# No deadline: a slow machine is not a failing test. Derandomised: a run can be repeated exactly.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
# To look for new counterexamples: pytest --hypothesis-profile=explore
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, which is never in the repository; skips where there is none."""
    named = os.environ.get("BLOODFILM_DATA")
    if not named:
        pytest.skip("needs real data: set BLOODFILM_DATA to its folder")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"BLOODFILM_DATA names {folder}, which is not a folder")
    return folder


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Seed the global generators, so that no test depends on the tests before it."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of progress, so that stderr is the same however long a command takes."""
    defaults = TerminalProgress.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "clock", lambda: 0.0)
