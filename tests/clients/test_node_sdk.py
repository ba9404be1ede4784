"""The SDKs of OpenAI and Vercel for Node: runs the programs in `node/`, each of which holds its own tests."""

import subprocess
from pathlib import Path

import pytest
from running import Gateway, Simulator, environment, tool, unknown_key

pytestmark = pytest.mark.clients

FOLDER = Path(__file__).parent / "node"
PROGRAMS = sorted(file.name for file in FOLDER.glob("*.mjs") if file.name != "support.mjs")
ON_EVERY_MODEL = ("ai-sdk.mjs", "models.mjs")
NODE_TIMEOUT_S = 50


@pytest.mark.timeout(NODE_TIMEOUT_S + 10)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_tests_in_node_pass(request: pytest.FixtureRequest, deepseek: Simulator, program: str) -> None:
    assert (FOLDER / "node_modules" / "ai").is_dir(), "run `make test`, which installs the SDKs for Node"
    gateway: Gateway = request.getfixturevalue("complete" if program in ON_EVERY_MODEL else "gateway")
    keys = {}
    if program == "errors.mjs":
        impatient: Gateway = request.getfixturevalue("impatient")
        keys = {
            "UNKNOWN_KEY": unknown_key(),
            "REVOKED_KEY": gateway.revoked,
            "PENNILESS_KEY": gateway.penniless,
            "SLOW_KEY": gateway.key(rpm=1),
            "SINGLE_KEY": gateway.key(concurrency=1),
            "IMPATIENT_URL": impatient.base_url,
            "IMPATIENT_KEY": impatient.customer,
        }
    where = {"BASE_URL": gateway.base_url, "API_KEY": gateway.customer, "SIMULATOR_URL": deepseek.base_url}
    ended = subprocess.run(
        [tool("node", "nodejs"), "--test", "--test-reporter=tap", program],
        cwd=FOLDER,
        env=environment(**where, **keys),
        capture_output=True,
        text=True,
        timeout=NODE_TIMEOUT_S,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "\n# fail 0\n" in ended.stdout
    assert "\n# skipped 0\n" in ended.stdout


def test_there_are_programs_to_run() -> None:
    assert PROGRAMS == ["ai-sdk.mjs", "completions.mjs", "errors.mjs", "models.mjs", "streams.mjs", "tools.mjs"]
