"""Compile the data plane's modules with mypyc: `.venv/bin/python requirements/native.py`.

The modules are listed in pyproject.toml (tool.vipcloud.native). Each becomes an extension beside its source, which
Python then prefers; without them the same code runs interpreted, at more CPU per request (`make bench`). Nothing is
done where the extensions are those of these sources. Whatever goes wrong leaves the sources alone, and says so.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
STAMP = SOURCE / "vipcloud.native"  # what the extensions were made of
GROUP = "vipcloud_native"
# Types are judged by `make check`; here only what the compiler needs must be known.
MYPY = """\
[mypy]
mypy_path = src
explicit_package_bases = True
follow_untyped_imports = True
ignore_missing_imports = True
"""


def main() -> None:
    """Compile, if need be; `--remove` removes the extensions."""
    os.chdir(ROOT)
    if "--remove" in sys.argv:
        remove()
        return
    sources = listed()
    digest = digest_of(sources)
    if STAMP.exists() and STAMP.read_text() == digest and len(extensions()) == len(sources) + 1:
        return
    remove()
    print(f"Compiling {len(sources)} modules of the data plane, about a minute; done once ...", file=sys.stderr)
    problem = prepare() or build(sources)
    if problem is not None:
        remove()
        print(f"{problem}\nGoing on without: the same gateway, at more CPU per request.", file=sys.stderr)
        return
    STAMP.write_text(digest)


def listed() -> list[str]:
    """The sources to compile, below the checkout."""
    modules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["vipcloud"]["native"]
    return [f"src/{module.replace('.', '/')}.py" for module in modules]


def stale() -> bool:
    """Whether there are extensions that were made of something else."""
    return bool(extensions()) and (not STAMP.exists() or STAMP.read_text() != digest_of(listed()))


def extensions() -> list[Path]:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return [path for path in SOURCE.rglob(f"*{suffix}") if path.is_file()]


def remove() -> None:
    STAMP.unlink(missing_ok=True)
    for path in SOURCE.rglob("*.so"):
        path.unlink()


def digest_of(sources: list[str]) -> str:
    """Of all that the extensions are made of: sources, this program, the interpreter, and the locked compiler."""
    parts = hashlib.sha256(f"{sys.version} {sysconfig.get_config_var('EXT_SUFFIX')}".encode())
    for name in [*sources, "requirements/native.py", "requirements/native.lock"]:
        parts.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return parts.hexdigest()


def prepare() -> str | None:
    """See to a C compiler and Python's own headers. What is missing, if something stays so."""
    wanted = ["cc=gcc"]
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        wanted.append("=python{}.{}-dev".format(*sys.version_info[:2]))
    if subprocess.run(["requirements/debian", *wanted]).returncode:
        return "There is no C compiler, or none of Python's headers."
    return None


def build(sources: list[str]) -> str | None:
    """Compile, and put what came of it beside the sources. Why not, if it cannot be done."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mypy.ini").write_text(MYPY)
        made = subprocess.run(
            [sys.executable, "-c", BUILD, str(folder), GROUP, *sources], capture_output=True, text=True
        )
        if made.returncode:
            return f"{made.stdout[-2000:]}{made.stderr[-2000:]}"
        for path in (folder / "out").rglob("*.so"):
            to = SOURCE / path.relative_to(folder / "out")
            shutil.copyfile(path, to.with_suffix(".new"))
            to.with_suffix(".new").replace(to)  # one that runs keeps the former
    return None


# In a process of its own: the compiler takes a gigabyte, and ends its process where it finds a fault.
BUILD = """
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

folder, group, *sources = sys.argv[1:]
extensions = mypycify(
    ["--config-file", f"{folder}/mypy.ini", "--cache-dir", f"{folder}/cache", *sources],
    opt_level="2", debug_level="0", multi_file=True, target_dir=f"{folder}/c", group_name=group,
)
for extension in extensions:
    # -Werror: another compiler may warn of other things.
    given = [flag for flag in extension.extra_compile_args if flag != "-Werror"]
    extension.extra_compile_args = [*given, "-fno-semantic-interposition"]

class BuildAtOnce(build_ext):
    def build_extensions(self):
        one = self.compiler.compile

        def at_once(sources, *rest, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = pool.map(lambda source: one([source], *rest, **options), sources)
                return [name for names in made for name in names]

        self.compiler.compile = at_once
        super().build_extensions()


command = BuildAtOnce(Distribution({"ext_modules": extensions, "package_dir": {"": "src"}}))
command.build_lib, command.build_temp = f"{folder}/out", f"{folder}/objects"
command.ensure_finalized()
command.run()
"""

if __name__ == "__main__":
    main()
