"""Takes vipcloud's modules from their sources, compiled or not: for proofs that put fakes or faults into them.

To be imported before any of them; as a plugin of pytest's that is `-p sources`.
"""

import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path

PACKAGE = str(Path(__file__).resolve().parents[1] / "src" / "vipcloud")

assert "vipcloud" not in sys.modules, "too late: some of it is imported already"


def _only_sources(path: str) -> FileFinder:
    if not path.startswith(PACKAGE):
        raise ImportError(f"{path} is not ours")
    return FileFinder(path, (SourceFileLoader, SOURCE_SUFFIXES))


sys.path_hooks.insert(0, _only_sources)
