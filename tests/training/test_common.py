"""Where a configuration's starting weights lie."""

from pathlib import Path

import pytest

import bloodfilm
from bloodfilm.core.errors import ConfigError
from bloodfilm.training.tasks.common import find_weights


def test_weights_lie_under_the_data_root_or_in_an_installed_package(tmp_path):
    assert find_weights("start/net.npz", tmp_path) == tmp_path / "start" / "net.npz"
    assert find_weights(str(tmp_path / "net.npz"), Path("elsewhere")) == tmp_path / "net.npz"
    inside = find_weights("package:bloodfilm/films/stain.py", tmp_path)
    assert inside == Path(bloodfilm.__file__).parent / "films" / "stain.py"


@pytest.mark.parametrize(
    "named", ["package:no_such_package/net.pth", "package:", "package:../up/net.pth", "package:os"]
)
def test_packages_that_are_not_there_are_named_with_the_remedy(named):
    with pytest.raises(ConfigError, match="pip install") as caught:
        find_weights(named, Path())
    assert repr(named) in str(caught.value) and "\n" not in str(caught.value)
