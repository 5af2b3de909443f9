"""Configuration files: every key is known, and what is wrong is said in one line."""

from pathlib import Path

import pytest

from bloodfilm.core.errors import ConfigError
from bloodfilm.training.config import load_config, parse_config

SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
GOOD = """
task = "detector"
[model]
width = 16
[data]
train = [{ path = "a", splits = ["train"] }]
validation = [{ path = "a", splits = ["val"] }]
"""


def load(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return load_config(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_the_shipped_configurations_are_understood(path):
    config = load_config(path)
    assert parse_config(config.model_dump(mode="json"), "again") == config


def test_there_are_shipped_configurations():
    assert {"detector", "reader"} <= {p.stem for p in SHIPPED}


def test_what_is_left_out_has_its_default(tmp_path):
    config = load(tmp_path, GOOD)
    assert config.model.width == 16 and config.model.backbone == "mobilenetv2_100"
    assert config.data.train[0].repeat == 1.0 and config.data.train[0].splits == ("train",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("width = 16", "widht = 16", "model.widht is no known key; did you mean width?"),
        ("task =", "sede = 1\ntask =", "sede is no known key; did you mean seed?"),
        ('{ path = "a", splits = ["train"]', '{ pahts = "a", path = "a"', "did you mean path?"),
        ("width = 16", "zzz = 16", "model.zzz is no known key"),
        ("width = 16", 'width = "wide"', "model.width: "),
        ("width = 16", "width = 0", "model.width: "),
        ('"detector"', '"detectors"', "task: "),
        ("[model]", "[optim]\nlr = -1\n[model]", "optim.lr: "),
        ("[model]", "[optim]\nepochs = 2.5\n[model]", "optim.epochs: "),
        ("[model]", "[optim]\nworkers = -1\n[model]", "optim.workers: "),
        ("[model]", "[augment]\nstain = -0.1\n[model]", "augment.stain: "),
        ("[model]", "[augment]\nmild = 1.5\n[model]", "augment.mild: "),
        ("[model]", "[loss]\nbox = -1\n[model]", "loss.box: "),
        ("[data]", "[data]\nsize = 100", "data.size: "),
        ('train = [{ path = "a", splits = ["train"] }]', "train = []", "data.train: "),
        ('train = [{ path = "a", splits = ["train"] }]', "", "data.train: "),
        ('task = "detector"', 'seed = -1\ntask = "detector"', "seed: "),
        ('task = "detector"', "", "task: "),
        ("[model]", "[model", "not a TOML file"),
    ],
)
def test_mistakes_are_said_in_one_line_with_file_and_key(tmp_path, old, new, said):
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    line = str(caught.value)
    assert "run.toml" in line and said in line and "\n" not in line


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_config(tmp_path / "binary.toml")
