"""Which command is meant, before anything but its own code is loaded."""

import subprocess
import sys

import pytest

from vipcloud.cli.main import PROGRAMS, command


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("serve --port 1", "serve"),
        ("--data serve keys list", "keys"),
        ("--config=a.toml --data d watch", "watch"),
        ("--help", None),
        ("--data", None),
        ("", None),
    ],
)
def test_the_command_is_the_first_word_that_is_no_options_value(arguments: str, name: str | None) -> None:
    assert command(arguments.split()) == name


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_loads_no_command_but_its_own(name: str) -> None:
    program = (
        "import sys; from vipcloud.cli.main import run\n"
        f"sys.argv = ['vipcloud', '{name}', '--help']\n"
        "try: run()\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.exit('vipcloud.cli.commands' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout


def test_a_program_ends_without_looking_through_what_it_has_loaded() -> None:
    # Of helpers, which run below the gateway's priority, this look took seconds on a busy machine.
    program = (
        "import gc, sys; from vipcloud.cli.main import run\n"
        "class Knot:\n"
        "    def __del__(self): print('found')\n"
        "gc.disable(); knot = Knot(); knot.itself = knot; del knot\n"
        "sys.argv = ['vipcloud', 'watch', '--help']\n"
        "run()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "watch" in done.stdout
    assert "found" not in done.stdout
