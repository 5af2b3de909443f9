"""A run of the sparse task is exported as a bundle's detector; its attributes stay behind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.export.onnx_graphs import DetectorGraph
from bloodfilm.export.trained import load_detector
from bloodfilm.models import CellDetector
from bloodfilm.training import loop
from bloodfilm.training.checkpoint import load_checkpoint
from tiny import BACKBONE, OBJECT_TYPES, config, to_toml, write_set


@pytest.mark.slow
def test_a_sparse_run_becomes_the_detector_of_a_bundle(tmp_path: Path) -> None:
    write_set(tmp_path / "discs", 2, 2)
    optim = {"epochs": 2, "samples": 8, "batch": 4}
    data = config("sparse", optim=optim, sparse={"attributes": 0.5, "begin": 0.5})
    (tmp_path / "sparse.toml").write_text(to_toml(data))
    words = ["train", tmp_path / "sparse.toml", "--data", tmp_path, "--out", tmp_path / "run"]
    result = CliRunner().invoke(app, [*map(str, words), "--device", "cpu"])
    assert result.exit_code == 0, result.output

    trained = load_detector(tmp_path / "run", tmp_path)
    assert set(trained.thresholds) == set(OBJECT_TYPES)
    assert trained.record.sources["train"][0]["name"] == "discs"
    assert isinstance(trained.graph, DetectorGraph)
    weights = load_checkpoint(tmp_path / "run" / loop.BEST)["model"]
    assert any(name.startswith("attributes.") for name in weights)
    plain = CellDetector(BACKBONE, len(OBJECT_TYPES), 16).eval()
    plain.load_state_dict({k: v for k, v in weights.items() if not k.startswith("attributes.")})
    image = torch.from_numpy(np.ascontiguousarray(trained.probes[0])[None])
    with torch.no_grad():
        for one, other in zip(DetectorGraph(plain)(image), trained.graph(image), strict=True):
            assert torch.equal(one, other)
