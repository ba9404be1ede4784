"""Frameworks in Python: runs the programs in `frameworks/`, which hold their own tests, in their own environment."""

import re
import subprocess
from pathlib import Path

import pytest
from running import Gateway, environment

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "frameworks"
PROGRAMS = sorted(file.name for file in FOLDER.glob("*.py") if file.name != "customer.py")
PYTHON = ROOT / ".venv" / "clients" / "bin" / "python"
TIMEOUT_S = 100


@pytest.mark.timeout(TIMEOUT_S + 10)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_tests_with_a_framework_pass(complete: Gateway, program: str) -> None:
    assert PYTHON.is_file(), "run `make test`, which installs the frameworks"
    options = ["-q", "--config-file=/dev/null", f"--confcutdir={FOLDER}", "-p", "no:cacheprovider", "--timeout=20"]
    ended = subprocess.run(
        [PYTHON, "-m", "pytest", *options, program],
        cwd=FOLDER,
        env=environment(
            BASE_URL=complete.base_url,
            API_KEY=complete.customer,
            MANAGEMENT_KEY=complete.manager,
            PYTHONDONTWRITEBYTECODE="1",
        ),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^\d+ passed", ended.stdout, re.MULTILINE), ended.stdout


def test_there_are_programs_to_run() -> None:
    assert PROGRAMS == ["langchain_agents.py", "openai_sdk.py", "openrouter_sdk.py", "pydantic_ai_agents.py"]
