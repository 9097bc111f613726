"""Runs what README.md shows and puts the real output under each command: `python tools/readme.py`. A test compares.

Everything happens in one empty directory, top to bottom. A ```python block that begins with `# name.py` becomes that file. In a
```console block each line after `$ ` is a command: words, quotes, a last `&`, `kill -9 $!`, and `# exits with N` where N is not 0.
A line `...` stands for output that is left out: as many lines as are above and below it are kept. The ```mermaid block is drawn
from the table of order states.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mqd_ledger.orders import mermaid

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(console|python|mermaid)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"mqd-ledger": [sys.executable, "-m", "mqd_ledger"], "python": [sys.executable]}
LEFT_OUT = "..."
TRADES = re.compile(rb'"events": \d{3}')  # in the status of a run that has come some way


class Shell:
    """One directory in which commands are run in turn, as the same user on every machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MQD_")}
        self.environment = {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "LOGNAME": "trader"}
        self.background: subprocess.Popen[bytes] | None = None
        self.ledger = ""  # of the run in the background

    def start(self, words: list[str], out: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
        command = [*PROGRAMS[words[0]], *words[1:]]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=out, stderr=subprocess.STDOUT)

    def run(self, line: str) -> list[str]:
        """What a command prints. An exit code that is not stated is an error."""
        words = shlex.split(line, comments=True)
        if line == "kill -9 $!":
            self.kill()
            return []
        if words[-1] == "&":
            self.ledger = words[words.index("--ledger") + 1]
            self.background = self.start(words[:-1], subprocess.DEVNULL)
            return []
        process = self.start(words)
        lines = process.communicate()[0].decode().splitlines()
        stated = re.search(r"# exits with (\d+)$", line)
        if process.returncode != (int(stated[1]) if stated else 0):
            story = [f"$ {line}", *lines, f"It exited with {process.returncode}, and README.md states another code."]
            raise SystemExit("\n".join(story))
        return lines

    def kill(self) -> None:
        """End the run in the background in the middle of its work."""
        assert self.background is not None
        deadline = time.monotonic() + 60
        while not TRADES.search(
            self.start(["mqd-ledger", "status", "--json", "--ledger", self.ledger]).communicate()[0]
        ):
            if self.background.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The run on {self.ledger} was to be killed while it trades, but it does not trade.")
        if self.background.poll() is not None:
            raise SystemExit(f"The run on {self.ledger} ended before it could be killed: give it a lower --speed.")
        self.background.kill()
        self.background.wait()


def console(block: str, shell: Shell) -> str:
    """The commands of a block, each with what it prints now, shortened as it was."""
    lines: list[str] = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *old = part.splitlines()
        new = shell.run(command)
        if LEFT_OUT in old:
            above = old.index(LEFT_OUT)
            below = len(old) - above - 1
            new = [*new[:above], LEFT_OUT, *new[max(above, len(new) - below) :]]
        lines += [f"$ {command}", *new]
    return "\n".join(lines) + "\n"


def rendered(text: str, folder: Path) -> str:
    """The README as it has to be."""
    shell = Shell(folder)

    def block(match: re.Match[str]) -> str:
        kind, body = match[1], match[2]
        if kind == "console":
            body = console(body, shell)
        elif kind == "mermaid":
            body = f"{mermaid()}\n"
        elif named := re.match(r"# (\w+\.py)\n", body):
            (folder / named[1]).write_text(body, encoding="utf-8", newline="\n")
        return f"```{kind}\n{body}```"

    try:
        return BLOCK.sub(block, text)
    finally:
        if shell.background is not None:
            shell.background.kill()
            shell.background.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mqd-ledger-readme-") as directory:
        README.write_text(rendered(README.read_text(encoding="utf-8"), Path(directory)), encoding="utf-8", newline="\n")
