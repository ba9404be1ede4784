"""The programs under test, as processes of their own: `vipcloud serve`, `vipcloud sim` and the command line.

Nothing of the gateway is imported here but for making things up (a well-formed key): what is tested is what a customer
meets, the installed program on a port.
"""

import json
import os
import re
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from vipcloud.accounts import rules

T = TypeVar("T")

PROGRAM = Path(sys.executable).with_name("vipcloud")
START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 15.0
POLL_S = 0.02
CANCEL_WITHIN_S = 0.25  # after a client left, until its upstream call is given up

# What would reach another gateway, another provider or another account than the one that a test means.
_FOREIGN = re.compile(r"^(VIPCLOUD_.*|OPENAI_.*|.*_API_KEY|(https?|all|no)_proxy)$", re.IGNORECASE)


def environment(**more: str) -> dict[str, str]:
    """This process's environment without keys, proxies and settings that would lead a program astray."""
    return {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)} | more


def tool(name: str, package: str) -> str:
    """The path of a program that these tests cannot do without."""
    path = shutil.which(name)
    assert path is not None, f"these tests need `{name}`: install Debian's `{package}`, or run `make test`, which does"
    return path


def eventually(true: Callable[[], T], within_s: float = 5.0) -> T:
    """Wait until `true()` is, and return it. For what another process does in its own time."""
    deadline = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"not true within {within_s} s"
        time.sleep(POLL_S)
    return found


def vipcloud(*arguments: str, cwd: Path) -> str:
    """Run the command line; what it prints. Fails with what it says otherwise."""
    ended = subprocess.run(
        [PROGRAM, *arguments], cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert ended.returncode == 0, f"vipcloud {' '.join(arguments)}: {ended.stdout}{ended.stderr}"
    return ended.stdout


class Process:
    """A long-running `vipcloud` command. Its output goes to files, so that it never waits for a reader."""

    def __init__(self, name: str, arguments: list[str], cwd: Path) -> None:
        assert PROGRAM.is_file(), f"{PROGRAM} is not there: run `make test`, which installs it"
        self.name = name
        self._out, self._err = cwd / f"{name}.out", cwd / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [PROGRAM, *arguments], cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def complaints(self) -> str:
        return self._err.read_text()

    def says(self, pattern: str) -> re.Match[str]:
        """Wait for output that matches; fails when the process ends first."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.output)
            assert found or self._process.poll() is None, f"{self.name} ended: {self.output}{self.complaints}"
            return found

        return eventually(look, START_TIMEOUT_S)  # type: ignore[return-value]

    def stop(self) -> None:
        """End it with SIGTERM. It must end by itself, in time, with status 0, without a traceback, and take its
        helpers with it."""
        helpers = self._helpers()
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.name} did not end within {END_TIMEOUT_S} s: {self.complaints}") from None
        assert status == 0, f"{self.name} ended with {status}: {self.output}{self.complaints}"
        assert "Traceback" not in self.complaints, self.complaints
        assert [pid for pid in helpers if Path(f"/proc/{pid}").exists()] == [], f"{self.name} left helpers behind"

    def _helpers(self) -> list[str]:
        return Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()


class Site:
    """`vipcloud serve` with its website, as `make run` starts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.process = Process("serve", ["serve", "--port", "0", "--data", str(folder / "data")], folder)
        self.url = self.process.says(r"website +(http://\S+)")[1]


@dataclass(frozen=True)
class Simulator:
    """A simulated provider and its log."""

    base_url: str

    def log(self, mark: str) -> list[dict[str, Any]]:
        """The requests whose body contains `mark`, oldest first. Their times are this machine's monotonic clock."""
        with urllib.request.urlopen(f"{self.base_url}/_sim/log", timeout=5) as answer:
            return [entry for entry in json.load(answer) if mark in entry["body_text"]]

    def ended(self, mark: str, within_s: float = 5.0) -> dict[str, Any]:
        """The only request with `mark`, once it has ended."""

        def look() -> dict[str, Any] | None:
            entries = self.log(mark)
            assert len(entries) <= 1, entries
            return entries[0] if entries and entries[0]["ended_s"] is not None else None

        return eventually(look, within_s)  # type: ignore[return-value]


@dataclass
class Gateway:
    """`vipcloud serve` on a free port, with its own data folder and accounts."""

    folder: Path
    config: str = ""
    catalog: str = ""
    process: Process = field(init=False)
    base_url: str = field(init=False)  # with /v1, as SDKs want it

    def start(self) -> None:
        (self.folder / "data").mkdir(parents=True)
        (self.folder / "data" / "catalog.toml").write_text(self.catalog)
        arguments = ["serve", "--port", "0", *self._where]
        if self.config:
            (self.folder / "settings.toml").write_text(self.config)
        self.process = Process("gateway", arguments, self.folder)
        self.base_url = self.process.says(r"base URL +(http://\S+/v1)\n")[1]
        eventually(lambda: self.status("/readyz") == 200, START_TIMEOUT_S)

    def stop(self) -> None:
        self.process.stop()

    @property
    def _where(self) -> list[str]:
        return ["--data", "data", *(["--config", "settings.toml"] if self.config else [])]

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    def status(self, path: str) -> int:
        """The status of a GET; 0 where nothing answers."""
        try:
            with urllib.request.urlopen(self.origin + path, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def account(self, **limits: str | int) -> str:
        """A new account's e-mail address. Unlimited but for `limits`, such as `rpm=3`, `credit="0"`."""
        email = f"customer-{secrets.token_hex(4)}@example.com"
        options = {"credit": "5.00", "rpm": 0, "rpd": 0, "concurrency": 0} | limits
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        vipcloud("accounts", "create", email, *flags, *self._where, cwd=self.folder)
        return email

    def key(self, account: str | None = None, **limits: str | int) -> str:
        """A new key, of `account` or else of a new account with `limits`."""
        owner = account or self.account(**limits)
        return str(json.loads(self._run("keys", "create", "--account", owner, "--json"))["key"])

    def revoke(self, key: str) -> None:
        self._run("keys", "revoke", key)

    def _run(self, *arguments: str) -> str:
        return vipcloud(*arguments, *self._where, cwd=self.folder)

    def management_key(self, account: str) -> str:
        """A new key that manages the account's others."""
        return str(json.loads(self._run("keys", "create", "--account", account, "--management", "--json"))["key"])

    @cached_property
    def manager(self) -> str:
        """The key that manages those of an account with credit."""
        return self.management_key(self.account(credit="1000"))

    @cached_property
    def customer(self) -> str:
        """The key of an account that no limit stops."""
        return self.key(credit="1000")

    @cached_property
    def penniless(self) -> str:
        return self.key(credit="0")

    @cached_property
    def revoked(self) -> str:
        key = self.key()
        self.revoke(key)
        return key

    def usage(self, request_id: str, within_s: float = 5.0) -> Mapping[str, Any]:
        """The row in the books of the request with this `x-request-id`, once it is there."""
        booked = f"chatcmpl-{request_id.removeprefix('req_')}"

        def look() -> Mapping[str, Any] | None:
            connection = sqlite3.connect(f"file:{self.folder / 'data' / 'vipcloud.db'}?mode=ro", uri=True)
            connection.row_factory = sqlite3.Row
            try:
                found = connection.execute("SELECT * FROM usage WHERE request_id = ?", (booked,)).fetchone()
            finally:
                connection.close()
            return dict(found) if found else None

        return eventually(look, within_s)  # type: ignore[return-value]


def unknown_key() -> str:
    """A key whose form and checksum are right, and which no account has."""
    return rules.mint(secrets.token_bytes(rules.RANDOM_BYTES))


def mark() -> str:
    """A word that makes a request's message unlike all others."""
    return f"mark{secrets.token_hex(6)}"
