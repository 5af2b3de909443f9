"""Configuration files: every key is known, and what is wrong is said in one line."""

from pathlib import Path

import pytest

from bloodfilm.core.errors import ConfigError
from bloodfilm.training.config import load_config, parse_config, shipped_config, shipped_configs

SHIPPED = shipped_configs()
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


@pytest.mark.parametrize("name", SHIPPED)
def test_load_config_reads_every_shipped_configuration(name, monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(tmp_path)
    config = load_config(Path(name))
    assert load_config(Path(name.removesuffix(".toml"))) == config
    assert parse_config(config.model_dump(mode="json"), "again") == config
    assert not caplog.records  # no key of an older version


def test_a_file_of_the_user_hides_the_shipped_one(monkeypatch, tmp_path):
    assert {"detector.toml", "classifier.toml", "sparse.toml"} <= set(SHIPPED)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "detector.toml").write_text(GOOD)
    assert load_config(Path("detector.toml")).model.width == 16
    assert load_config(Path("detector")).model.width == 80
    assert shipped_config("detector") == SHIPPED["detector.toml"]
    for name in ("reader.toml", "missing"):
        with pytest.raises(ConfigError, match=r"shipped.*classifier\.toml"):
            load_config(Path(name))
        with pytest.raises(ConfigError, match=r"shipped.*classifier\.toml"):
            shipped_config(name)
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "folder" / "detector.toml")


OLD = """
task = "reader"
[model]
reads = "roi"
[data]
train = [{ path = "a", splits = ["train"] }]
validation = [{ path = "a", splits = ["val"] }]
[augment]
squeeze = 0.01
[loss]
kind = 0.5
[lookalikes]
red_cells = 7
[lookalikes.augment]
squeeze = 0.02
[sparse]
copies = 2.5
taught_attributes = false
"""


def test_keys_of_older_versions_are_read_and_reported(tmp_path, caplog):
    config = load(tmp_path, OLD)
    assert config.task == "classifier" and config.model.input == "roi"
    assert config.augment.aspect == 0.01 and config.loss.object_type == 0.5
    assert config.hard_negatives.red_cells == 7 and config.hard_negatives.augment.aspect == 0.02
    assert config.sparse.copy_paste == 2.5 and not config.sparse.teacher_attributes
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 8 and all("run.toml" in line and "now called" in line for line in said)
    with pytest.raises(ConfigError, match=r"run\.toml: lookalikes is the old name of hard_neg"):
        load(tmp_path, OLD + "[hard_negatives]\nempty = 1\n")


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
