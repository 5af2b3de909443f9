"""An index does for every command what the set it was made from does, and is written whole."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.formats import open_dataset
from bloodfilm.formats.parquet import index
from tiny import write_set

pytest.importorskip("pyarrow")


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "discs", 4, 2)
    run("convert", folder / "discs", folder / "discs.parquet", "--to", "index")
    return folder


@pytest.mark.parametrize(
    ("command", "codes"), [("stats", (0,)), ("audit", (0, 1)), ("split", (0,)), ("info", (0,))]
)
def test_a_command_says_the_same_of_an_index(root, tmp_path, command, codes):
    said = []
    for name in ("discs", "discs.parquet"):
        out = tmp_path / "out.json"
        option = "--out" if command == "split" else "--json"
        arguments = [root / name, "--json"] if command == "info" else [root / name, option, out]
        result = CliRunner().invoke(app, ["data", command, *map(str, arguments)])
        assert result.exit_code in codes, result.output
        content = json.loads(result.stdout if command == "info" else out.read_text())
        for differing in ("source", "roots", "format"):
            content.pop(differing, None)
        said.append(content)
    assert said[0] == said[1]


def test_a_split_writes_an_index_to_train_on(root, tmp_path):
    file = tmp_path / "set.parquet"
    out = ["--out", tmp_path / "split.json", "--dataset", file, "--fresh"]
    said = run("split", root / "discs.parquet", *out)
    assert f"wrote {file}: 6 fields" in said
    placed = {f["image"]: f["split"] for f in json.loads((out[1]).read_text())["fields"]}
    made = open_dataset(file)
    assert len(made) == 6 and sum(len(f.cells) for f in made) > 12
    assert sorted(f.split for f in made) == sorted(placed.values())


def test_an_index_is_written_whole_or_not_at_all(root, tmp_path, monkeypatch):
    target = tmp_path / "a.parquet"
    shutil.copy(root / "discs.parquet", target)
    before = target.read_bytes()
    said = run("convert", root / "discs", target, "--to", "index", code=2)
    assert "exists" in said and target.read_bytes() == before
    real, made = index._row, 0

    def stops(*arguments):
        nonlocal made
        made += 1
        if made == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(index, "_row", stops)
    run("convert", root / "discs", target, "--to", "index", "--overwrite", code=130)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]
