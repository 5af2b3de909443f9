"""Every command's help ends with examples, and these are commands that exist."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.cli.examples import EXAMPLES, epilog


def commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command below a group by its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{above}{name} ")
        else:
            yield above + name, command


COMMANDS = dict(commands(typer.main.get_command(app)))


def lines(command: str) -> list[str]:
    """Return whole examples: a line that ends in a backslash goes on in the next."""
    return "\n".join(EXAMPLES[command]).replace("\\\n", " ").splitlines()


def test_every_command_has_examples_and_no_example_is_of_another() -> None:
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_them_unwrapped(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], catch_exceptions=False).stdout
    for line in EXAMPLES[name]:
        assert f"    {line}\n" in shown
    assert max(map(len, epilog(name).splitlines())) < 96


@pytest.mark.parametrize(("name", "line"), [(n, one) for n in sorted(COMMANDS) for one in lines(n)])
def test_an_example_parses(name: str, line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])
    called = name.split()
    assert words[: 1 + len(called)] == ["bloodfilm", *called]
    # What the files hold does not matter here: an unknown option or a missing argument is refused.
    try:
        COMMANDS[name].make_context(name, words[1 + len(called) :])
    except typer.Exit as left:  # an option that prints something and stops
        assert left.exit_code == 0


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option: --nonsense"):
        COMMANDS["analyze"].make_context("analyze", ["fields", "--out", "x", "--nonsense"])
