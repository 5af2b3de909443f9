"""The documentation: its code runs, its commands parse, its tables are those of the code."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.cli.examples import EXAMPLES, epilog
from bloodfilm.core import dataset_codes, issue_codes
from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.results.tables import (
    FIXED_COLUMNS,
    LAST_COLUMNS,
    SHAPE_COLUMNS,
    describe_columns,
)
from bloodfilm.formats.registry import READERS, TABLES, WRITERS
from fixtures.made_up_results import make_failure, make_model
from golden.running import draw_discs

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "python.md").read_text("utf-8")
FORMATS = (ROOT / "docs" / "formats.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
TUTORIALS = ("analyse-a-film", "train-on-your-own-fields")
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: language, name of the file it shows (or `None`), text, first line."""

    language: str
    title: str | None
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    return [
        Block(m[1], m[2], m[3], text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)
    ]


def commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command below a group by its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{above}{name} ")
        else:
            yield above + name, command


COMMANDS = dict(commands(typer.main.get_command(app)))


def parse(line: str) -> str:
    """Parse a shell command that calls bloodfilm and return the subcommand's name.

    What the files hold does not matter: an unknown option or a missing argument is refused.
    """
    words = shlex.split(line, comments=True)
    words = words[: words.index(">")] if ">" in words else words
    name = next((n for n in (" ".join(words[1:3]), " ".join(words[1:2])) if n in COMMANDS), None)
    assert words[0] == "bloodfilm", line
    assert name is not None, f"no such command: {line}"
    try:
        COMMANDS[name].make_context(name, words[1 + len(name.split()) :])
    except typer.Exit as left:  # an option that prints something and stops
        assert left.exit_code == 0, line
    return name


def shell_lines(text: str) -> list[str]:
    """Return whole commands: a line that ends in a backslash continues on the next."""
    return text.replace("\\\n", " ").splitlines()


# ---- tutorials --------------------------------------------------------------------------------


def shell(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `bloodfilm` is the code under test."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "bloodfilm"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bloodfilm "$@"\n', "utf-8")
    script.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BLOODFILM_")}
    paths = [str(ROOT / "src"), environment.get("PYTHONPATH", "")]
    return environment | {
        "PATH": f"{programs}{os.pathsep}{environment['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the pages' shell blocks are for a POSIX shell")
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    page = ROOT / "docs" / "tutorials" / f"{name}.md"
    environment = shell(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    names: dict[str, object] = {"__name__": name}
    ran = 0
    for block in blocks(page.read_text("utf-8")):
        where = f"{page.name}:{block.line}"
        if block.title:
            (work / block.title).write_text(block.text, "utf-8")
        elif block.language == "bash":
            script = ["bash", "-euo", "pipefail", "-c", block.text]
            done = subprocess.run(
                script, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{where}: {block.text}\n{done.stdout}\n{done.stderr}"
        else:
            assert block.language == "python", f"{where}: nothing runs a {block.language!r} block"
            exec(compile(block.text, where, "exec"), names)
        ran += 1
    assert ran > 5
    assert (work / "results" / "report.html").is_file()


# ---- code and commands on every page ----------------------------------------------------------


def test_the_code_of_the_guide_runs(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("Agg")
    draw_discs(tmp_path / "fields")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(GUIDE):
        if block.language == "python":
            exec(compile(block.text, f"docs/python.md:{block.line}", "exec"), names)
    written = {p.name for p in tmp_path.iterdir()}
    assert {"results", "again", "reviewed.json"} <= written
    assert len(names["table"]) == len(names["coco"]["annotations"])


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    draw_discs(tmp_path / "fields")
    monkeypatch.chdir(tmp_path)
    code = [block for block in blocks(README) if block.language == "python"]
    assert code
    for block in code:
        exec(compile(block.text, f"README.md:{block.line}", "exec"), {})
    assert (tmp_path / "results" / "report.html").is_file()
    printed = capsys.readouterr().out
    assert "fields" in printed
    assert "red cell" not in printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_are_well_formed(page):
    for block in blocks(page.read_text("utf-8")):
        where = f"{page.name}:{block.line}"
        if block.language == "python":
            compile(block.text, where, "exec")
        elif block.language == "toml":
            tomllib.loads(block.text)
        for line in shell_lines(block.text) if block.language in {"", "bash", "sh"} else ():
            if line.startswith("bloodfilm "):
                parse(line.partition(" && ")[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_text_exist(page):
    """Inline code that starts with the program's name is a command; its options exist."""
    prose = FENCE.sub("", page.read_text("utf-8"))
    for call in re.findall(r"`bloodfilm ([a-z][^`]*)`", prose):
        words = call.replace("\n", " ").split()
        found = [n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS]
        groups = {name.split()[0] for name in COMMANDS}
        assert found or words[0] in {*groups, "COMMAND"}, call
        if found:
            known = {o for p in COMMANDS[found[0]].params for o in (*p.opts, *p.secondary_opts)}
            options = {w.partition("=")[0].rstrip(",.;)") for w in words if w.startswith("--")}
            assert options <= known | {"--help"}, call


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match=r"No such option:? '?--nonsense"):
        parse("bloodfilm analyze fields --out x --nonsense")
    with pytest.raises(AssertionError, match="no such command"):
        parse("bloodfilm analyse fields --out x")


# ---- examples of the help ---------------------------------------------------------------------


def test_every_command_has_examples_and_no_example_is_of_another() -> None:
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_them_unwrapped(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], catch_exceptions=False).stdout
    for line in EXAMPLES[name]:
        assert f"    {line}\n" in shown
    assert max(map(len, epilog(name).splitlines())) < 96
    assert not re.search(r"^ +-.*<list\[", shown, re.MULTILINE), "an option without a metavar"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_examples_parse(name: str) -> None:
    for line in shell_lines("\n".join(EXAMPLES[name])):
        assert parse(line) == name


# ---- tables -----------------------------------------------------------------------------------


def test_the_readme_lists_every_command():
    table = README[README.index("| command | does |") :].split("\n\n")[0]
    listed = set(re.findall(r"`bloodfilm ([a-z]+(?: [a-z]+)?)", table))
    known = set(COMMANDS)
    assert {name for name in listed if name in COMMANDS} == known


def test_the_readme_lists_the_columns():
    row = next(line for line in README.splitlines() if line.startswith("| `results/cells.csv`"))
    named = [name for part in re.findall("`([a-z0-9_,]+)`", row) for name in part.split(",")]
    assert named == [*FIXED_COLUMNS, *SHAPE_COLUMNS, *LAST_COLUMNS]


def test_every_format_is_listed_and_can_do_what_the_table_says():
    text = FORMATS
    table = text[text.index("| format | read | written |") :].split("\n\n")[0]
    read, written = set(), set()
    for row in table.splitlines()[2:]:
        first, reads, writes = (cell.strip() for cell in row.split("|")[1:4])
        names = set(re.findall(r"`([a-z_]+)`", first))
        assert names, row
        read |= names if reads == "yes" else set()
        written |= names if writes == "yes" else set()
    assert read == set(READERS)
    assert written == {*WRITERS, *TABLES}


@pytest.mark.parametrize(("page", "codes"), [(GUIDE, issue_codes), (FORMATS, dataset_codes)])
def test_every_code_is_listed(page, codes):
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (info|warning|error) \| (.*) \|$", page, re.M)
    assert {code: (severity, meaning) for code, severity, meaning in rows} == codes.CODES.entries


def test_every_key_of_a_result_is_listed(field):
    a_field = field()
    row = {r.split("|")[1].strip(): r for r in GUIDE.splitlines() if r.startswith("| `")}
    keys = {
        "`fields[]`": a_field.to_json(),
        "`fields[].view`": a_field.view.to_json(),
        "`fields[].cells[]`": a_field.cells[0].to_json(),
        "`failures[]`": make_failure("a", "b").to_json(),
        "`model`": make_model().to_json(),
    }
    for name, record in keys.items():
        missing = [key for key in record if f"`{key}`" not in row[name]]
        assert not missing, f"{name}: {missing}"


def test_every_column_is_listed():
    table = GUIDE[GUIDE.index("## cells.csv") : GUIDE.index("## result.json")]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    listed = [name for cell in cells for name in re.findall("`([a-z0-9_]+)`", cell)]
    assert listed == [*FIXED_COLUMNS, *SHAPE_COLUMNS, *LAST_COLUMNS]
    texts = dict(describe_columns(LLD_SCHEMA))
    assert all(f"| {texts[name]} |" in table for name in ("image", "object_type", "class", "score"))
