"""Set the project up, run it and check it: one command each, with nothing but Python installed.

    python3 tools/dev.py paper [ARGS...]     set up, then trade on paper: mqd-ledger run --paper ARGS
    python3 tools/dev.py run [--] ARGS...    set up, then mqd-ledger ARGS
    python3 tools/dev.py test [ARGS...]      set up, then every check; ARGS go to pytest
    python3 tools/dev.py lock [ARGS...]      write requirements.lock anew from pyproject.toml; ARGS go to uv (--upgrade)
    python3 tools/dev.py setup               only set up

Set-up makes .venv from requirements.lock (exact versions, hashes checked) and installs the project into it, editable.
A stamp written last says what .venv was made from: where it matches, set-up takes no time; where it is missing, an
earlier set-up was interrupted and .venv is made again.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
STAMP = "made-from.txt"

# What an activated Python or a shell's settings would tell a child about some other environment.
FOREIGN_VARIABLES = ("VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__")

# Each check in the order it runs: quick ones first. pytest comes after them, so that its summary stays in sight.
CHECKS = (
    ("ruff check", ("ruff", "check")),
    ("ruff format", ("ruff", "format", "--check")),
    ("mypy", ("mypy", "--strict")),
    ("import rules", ("lint-imports",)),
)


class Stopped(Exception):
    """Set-up or a request cannot go on; the message says what to do."""


# -------------------------------------------------------------------------------------------------------------- set-up
def program(venv: Path, name: str) -> Path:
    """Where a virtual environment keeps a program."""
    return venv / "Scripts" / f"{name}.exe" if os.name == "nt" else venv / "bin" / name


def environment(venv: Path) -> dict[str, str]:
    """The variables of a child that runs in `venv`; pip's own (PIP_*, its index and certificates) stay as they are."""
    variables = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
    variables["VIRTUAL_ENV"] = str(venv)
    variables["PATH"] = os.pathsep.join([str(program(venv, "python").parent), os.environ.get("PATH", os.defpath)])
    return variables


def fingerprints(root: Path) -> tuple[str, str]:
    """What the installed libraries depend on, and what the project's own installation depends on."""
    lock = (root / "requirements.lock").read_bytes()
    interpreter = f"{sys.implementation.cache_tag} {sys.version} {sys.base_prefix} {root}"
    libraries = hashlib.sha256(interpreter.encode(errors="surrogateescape") + b"\0" + lock).hexdigest()
    project = hashlib.sha256((root / "pyproject.toml").read_bytes()).hexdigest()
    return libraries, project


def stamped(venv: Path) -> tuple[str, str]:
    """The fingerprints `venv` was made from; empty ones where it was never finished or its Python is gone."""
    stamp = venv / STAMP
    if not stamp.is_file() or not program(venv, "python").exists():
        return "", ""
    lines = stamp.read_text(encoding="utf-8").splitlines()
    return (lines[0], lines[1]) if len(lines) == 2 else ("", "")


def write_stamp(venv: Path, libraries: str, project: str) -> None:
    unfinished = venv / f"{STAMP}.{os.getpid()}"
    unfinished.write_text(f"{libraries}\n{project}\n", encoding="utf-8")
    unfinished.replace(venv / STAMP)


def refuse_unusable_python() -> None:
    if sys.version_info < OLDEST_PYTHON:
        found, needed = "{}.{}".format(*sys.version_info[:2]), "{}.{}".format(*OLDEST_PYTHON)
        raise Stopped(f"This is Python {found}; mqd-ledger needs {needed} or newer: try python{needed} {sys.argv[0]}")
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        name = "python{}.{}-venv".format(*sys.version_info[:2])
        raise Stopped(
            f"{sys.executable} cannot make virtual environments: install its venv module "
            f"(Debian and Ubuntu: sudo apt install {name}) and try again."
        )


@contextmanager
def alone() -> Iterator[None]:
    """One set-up at a time. The programs it starts inherit the lock (not on Windows), so that a pip that outlived an
    interrupted set-up has ended before the next one begins.
    """
    with (ROOT / ".venv.lock").open("a", encoding="utf-8") as file:
        try:
            claim(file.fileno())
        except OSError:
            print("Waiting for another set-up of this project to end ...", file=sys.stderr, flush=True)
            claim_in_turn(file.fileno())
        yield


if sys.platform == "win32":

    def claim(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def claim_in_turn(file: int) -> None:
        while True:
            try:
                return msvcrt.locking(file, msvcrt.LK_LOCK, 1)
            except OSError as reason:  # LK_LOCK gives up after ten seconds
                if reason.errno != errno.EDEADLK:
                    raise

else:

    def claim(file: int) -> None:
        os.set_inheritable(file, True)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def claim_in_turn(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)


def run_quietly(command: list[str], venv: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env=environment(venv),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        close_fds=os.name == "nt",  # elsewhere the set-up's lock goes along
    )


def step(sentence: str, command: list[str], venv: Path) -> None:
    """Run one part of the set-up and show what it printed if it fails; standard output is left to what follows."""
    began = time.monotonic()
    print(f"{sentence} ...", end=" ", file=sys.stderr, flush=True)
    done = run_quietly(command, venv)
    print(f"{time.monotonic() - began:.1f} s" if done.returncode == 0 else "failed", file=sys.stderr, flush=True)
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stdout)
        raise Stopped(f"Set-up stopped at this step: {' '.join(command)}")


def set_up() -> Path:
    """Make or renew .venv where it is not what requirements.lock and pyproject.toml ask for; returns its path."""
    refuse_unusable_python()
    venv = ROOT / ".venv"
    for name in ("requirements.lock", "pyproject.toml"):
        if not (ROOT / name).is_file():
            raise Stopped(f"{name} is missing from {ROOT}; bring it back with: git checkout -- {name}")
    wanted = fingerprints(ROOT)
    if stamped(venv) != wanted:
        with alone():
            if stamped(venv) != wanted:  # another set-up may have done it meanwhile
                make(venv, *wanted)
    return venv


def make(venv: Path, libraries: str, project: str) -> None:
    """Fill .venv anew, or only install the project again where nothing but pyproject.toml has changed."""
    python = str(program(venv, "python"))
    pip = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-user"]
    if stamped(venv)[0] != libraries:
        (venv / STAMP).unlink(missing_ok=True)  # from here on .venv is unfinished
        step(f"Making {venv}", [sys.executable, "-m", "venv", "--clear", str(venv)], venv)
        step("Installing requirements.lock", [*pip, "--require-hashes", "-r", "requirements.lock"], venv)
    step("Installing mqd-ledger", [*pip, "--no-deps", "--no-build-isolation", "-e", "."], venv)
    write_stamp(venv, libraries, project)


# --------------------------------------------------------------------------------------------------------------- verbs
def show(output: bytes) -> None:
    """Pass on what a program printed, byte by byte, so that no console's encoding can stop it."""
    sys.stdout.flush()
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def hand_over(command: list[str], venv: Path) -> int:
    """Become the program, so that signals and its exit code are its own; Windows can only wait for it."""
    if os.name == "posix":
        os.execve(command[0], command, environment(venv))
    child = subprocess.Popen(command, env=environment(venv))
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the console sent it to the child as well, which ends in its own time


def run(arguments: list[str]) -> int:
    venv = set_up()
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    return hand_over([str(program(venv, "mqd-ledger")), *arguments], venv)


def paper(arguments: list[str]) -> int:
    return run(["run", "--paper", *arguments])


def test(arguments: list[str]) -> int:
    """Run every check even after one failed; anything but 0 means that something did."""
    venv = set_up()
    failed = []
    for name, (tool, *options) in CHECKS:
        began = time.monotonic()
        command = [str(program(venv, tool)), *options]
        done = run_quietly(command, venv)
        print(f"{name:<14}{'ok' if done.returncode == 0 else 'FAILED':<8}{time.monotonic() - began:5.1f} s", flush=True)
        if done.returncode != 0:
            failed.append(name)
            show(done.stdout)
    print("pytest", flush=True)
    pytest = [str(program(venv, "python")), "-m", "pytest", "-n", "2", *arguments]
    if subprocess.run(pytest, check=False, cwd=ROOT, env=environment(venv)).returncode != 0:
        failed.append("pytest")
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def lock(arguments: list[str]) -> int:
    """Resolve once for every platform and every Python from 3.11 on, without naming any index."""
    venv = set_up()
    target = ROOT / "requirements.lock"
    fixed = ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest", "--generate-hashes", "--no-header"]
    command = [str(program(venv, "uv")), "pip", "compile", "pyproject.toml", "--group", "dev", *fixed, "--quiet"]
    command += ["-o", target.name, *arguments]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment(venv))
    if done.returncode == 0 and "://" in target.read_text(encoding="utf-8"):
        raise Stopped("requirements.lock holds an address; it must install from whatever index its reader uses.")
    return done.returncode


def only_set_up(arguments: list[str]) -> int:
    if arguments:
        raise Stopped(f"setup takes no arguments, but got: {' '.join(arguments)}")
    print(f"Ready: {set_up()}", file=sys.stderr)
    return 0


VERBS = {"paper": paper, "run": run, "test": test, "lock": lock, "setup": only_set_up}


def main(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if not arguments or arguments[0] not in VERBS:
        found = arguments[0] if arguments else "nothing"
        print(f"Found {found}; expected one of {', '.join(VERBS)}.\n\n{__doc__}", file=sys.stderr)
        return 2
    try:
        return VERBS[arguments[0]](arguments[1:])
    except Stopped as reason:
        print(reason, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the next run takes up from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
