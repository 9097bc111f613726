"""Runs what README.md shows and puts the real output under each command, so that the README stays true.

    python tools/readme.py            rewrite the outputs in place
    python tools/readme.py --check    change nothing; show what differs and exit with 1 if anything does

Everything happens in one empty directory, top to bottom. A ```python block that begins with `# name.py` becomes that file. In a
```console block each line after `$ ` is a command: words, quotes, a last `&`, `kill -9 $!`, and `# exits with N` where N is not 0.
A line `...` stands for output that is left out: as many lines as are above and below it are kept. The ```mermaid block is drawn
from the table of order states.
"""

import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mqd_ledger.orders import mermaid

README = ROOT / "README.md"
BLOCK = re.compile(r"^```(console|python|mermaid)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"mqd-ledger": [sys.executable, "-m", "mqd_ledger"], "python": [sys.executable]}
KILL = "kill -9 $!"
SEEN = re.compile(rb'"events": \d{3}')  # in `status --json` of a run that has traded for a while

# What no two runs share: how long something took, and how far a run had come when it was killed.
VARYING = (
    (re.compile(r"[\d.]+ s \([\d,]+ bars/s\)"), "N s (N bars/s)"),
    (re.compile(r"(Went on after event )[\d,]+(.*?bars played now +)[\d,]+", re.DOTALL), r"\1N\2N"),
)
HASH = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{16}…")


class Shell:
    """One directory in which commands are run in turn, as one user whatever this one is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MQD_")}
        self.environment = {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "LOGNAME": "trader"}
        self.background: subprocess.Popen[bytes] | None = None

    def start(self, words: list[str]) -> subprocess.Popen[bytes]:
        command = [*PROGRAMS[words[0]], *words[1:]]
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=both)

    def run(self, line: str) -> list[str]:
        """What a command printed. An exit code that is not stated is an error."""
        words = shlex.split(line, comments=True)
        if line == KILL:
            self.kill()
            return []
        if words[-1] == "&":
            self.background, self.ledger = self.start(words[:-1]), words[words.index("--ledger") + 1]
            return []
        process = self.start(words)
        lines = process.communicate()[0].decode().splitlines()
        stated = re.search(r"# exits with (\d+)$", line)
        if process.returncode != (int(stated[1]) if stated else 0):
            raise SystemExit(
                "\n".join([f"$ {line}", *lines, f"It exited with {process.returncode}; README.md says otherwise."])
            )
        return lines

    def kill(self) -> None:
        """End the command in the background, in the middle of its work."""
        assert self.background is not None
        look, deadline = ["mqd-ledger", "status", "--json", "--ledger", self.ledger], time.monotonic() + 60
        while not SEEN.search(self.start(look).communicate()[0]):
            if self.background.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The run on {self.ledger} was to be killed while it trades, but it does not trade.")
        self.background.kill()
        self.background.communicate()


def console(block: str, shell: Shell) -> str:
    """The commands of a block, each with what it prints now, shortened as it was."""
    lines: list[str] = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *old = part.splitlines()
        new = shell.run(command)
        if "..." in old:
            above = old.index("...")
            new = [*new[:above], "...", *new[len(new) - (len(old) - above - 1) :]]
        lines += [f"$ {command}", *new]
    return "\n".join(lines) + "\n"


def rendered(text: str, folder: Path) -> str:
    """The README as it has to be."""
    shell = Shell(folder)

    def block(match: re.Match[str]) -> str:
        kind, body = match[1], match[2]
        if kind == "python" and (named := re.match(r"# (\w+\.py)\n", body)):
            (folder / named[1]).write_text(body, encoding="utf-8", newline="\n")
        body = {"console": lambda: console(body, shell), "mermaid": lambda: f"{mermaid()}\n", "python": lambda: body}[
            kind
        ]()
        return f"```{kind}\n{body}```"

    try:
        return BLOCK.sub(block, text)
    finally:
        if shell.background is not None:
            shell.background.kill()


def comparable(text: str) -> str:
    """Without what varies; hashes become numbers in the order they come, so that equal ones stay equal."""
    for pattern, stand_in in VARYING:
        text = pattern.sub(stand_in, text)
    known: dict[str, str] = {}
    return HASH.sub(lambda match: known.setdefault(match[0], f"hash-{len(known) + 1}"), text)


def differences(text: str, folder: Path) -> list[str]:
    was, is_now = comparable(text).splitlines(), comparable(rendered(text, folder)).splitlines()
    return list(difflib.unified_diff(was, is_now, "README.md", "what it prints", lineterm="", n=1))


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__)
        return 2
    text = README.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="mqd-ledger-readme-") as directory:
        if not arguments:
            README.write_text(rendered(text, Path(directory)), encoding="utf-8", newline="\n")
            return 0
        found = differences(text, Path(directory))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
