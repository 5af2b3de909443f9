import pytest

from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.report.drawing import true_size
from bloodfilm.report.html.palette import NEUTRAL, cell_style, legend


@pytest.mark.parametrize(
    ("squeeze", "longest", "size"),
    [
        (1.0, None, (100, 80)),
        (1.02, None, (100, 80)),  # within what a measured field strays
        (0.5, None, (200, 80)),
        (2.0, None, (100, 160)),
        (0.5, 100, (100, 40)),
        (float("nan"), None, (100, 80)),
        (0.0, None, (100, 80)),
    ],
)
def test_true_size(squeeze, longest, size):
    assert true_size(100, 80, squeeze, longest) == size


def test_colours_differ_between_families():
    families = ["monoblast", "myelocyte", "neutrophil", "eosinophil", "basophil", "monocyte"]
    families += ["lymphocyte", "erythroblast"]
    assert len({cell_style(name, DEFAULT_TAXONOMY).colour for name in families}) == len(families)
    assert cell_style("no such name", DEFAULT_TAXONOMY).dashed
    assert cell_style("white cell", DEFAULT_TAXONOMY).colour == NEUTRAL
    names = [name for name, _ in legend({"monoblast", "neutrophil"}, DEFAULT_TAXONOMY)]
    assert names == ["neutrophil", "blast or blast equivalent", "dashed: not named more closely"]
