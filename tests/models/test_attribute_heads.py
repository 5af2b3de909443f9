"""The branch that reads attributes from a detector's levels looks at the box it is given."""

import torch

from bloodfilm.models.attribute_heads import AttributeBranch
from bloodfilm.models.detector import CellDetector


def test_a_branch_sees_its_box_and_no_other_place() -> None:
    torch.manual_seed(0)
    branch = AttributeBranch((2, 3), (4, 8), 5, width=8)
    levels = [torch.randn(2, 2, 16, 16), torch.randn(2, 3, 8, 8)]
    images, boxes = torch.tensor([1]), torch.tensor([[16.0, 8, 16, 16]])
    before = branch(levels, images, boxes)
    assert before.shape == (1, 5)
    other = [level.clone() for level in levels]
    for level, stride in zip(other, (4, 8), strict=True):
        inside = torch.zeros(level.shape[2:], dtype=torch.bool)
        inside[8 // stride : 24 // stride, 16 // stride : 32 // stride] = True
        level[1][:, ~inside] = 99.0
        level[0] = 99.0
    # Samples nearer to the box's edge than half a step mix in what is beyond it; these are not.
    assert torch.allclose(branch([other[0], levels[1]], images, boxes), before, atol=1e-5)
    moved = branch(levels, images, boxes + torch.tensor([16.0, 0, 0, 0]))
    assert not torch.allclose(moved, before)


def test_no_cells_give_no_rows() -> None:
    branch = AttributeBranch((2,), (4,), 5)
    none = torch.zeros(0, dtype=torch.long)
    levels = [torch.zeros(1, 2, 8, 8)]
    assert branch(levels, none, torch.zeros(0, 4)).shape == (0, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # half precision never gets out
        assert branch(levels, none, torch.zeros(0, 4)).dtype == torch.float32
        one = branch(levels, torch.zeros(1, dtype=torch.long), torch.tensor([[4.0, 4, 8, 8]]))
        assert one.dtype == torch.float32


def test_a_detector_without_attributes_has_no_branch_and_the_same_outputs() -> None:
    torch.manual_seed(0)
    plain, reading = CellDetector(width=16).eval(), CellDetector(width=16, values=15).eval()
    assert plain.attributes is None
    absent, unknown = reading.load_state_dict(plain.state_dict(), strict=False)
    assert not unknown
    assert absent
    assert all(name.startswith("attributes.") for name in absent)
    image = torch.rand(1, 3, 64, 64) * 255
    for name, value in plain(image).items():
        assert torch.equal(value, reading(image)[name])
