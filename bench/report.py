"""What a benchmark leaves behind: a file of numbers, and where they come from."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from contestants import BENCH, ROOT

RESULTS = BENCH / "results"


def write(name: str, numbers: Mapping[str, object], rounds: Mapping[str, object]) -> Path:
    """Write `numbers`, the runs behind them and the machine to bench/results/`name`.json."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({**numbers, "machine": machine(), "rounds": rounds}, indent=2) + "\n")
    return file


def machine() -> dict[str, object]:
    """What a reader needs in order to compare: processor, versions, commit and time."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": model.group(1) if model else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": _output("nginx", "-v").rpartition("/")[2],
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "changed": bool(_output("git", "-C", str(ROOT), "status", "--porcelain")),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _output(*command: str) -> str:
    """What `command` prints, or nothing where it fails."""
    environment = dict(os.environ) | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return (done.stdout or done.stderr).strip() if done.returncode == 0 else ""
