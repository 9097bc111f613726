"""The same inputs give the same bytes, however Python happens to order its sets and dicts today."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def print_session() -> None:
    from mqd_ledger.envelope import encode
    from tests.test_engine import whole_session

    tape = whole_session().recorded
    text = b"\n".join(encode(one.event) + repr((one.position, one.correlation, one.causation)).encode() for one in tape)
    print(len(tape), hashlib.sha256(text).hexdigest())


def test_one_session_is_the_same_to_the_byte_under_every_hash_seed() -> None:
    command = [sys.executable, "-c", "from tests.test_hash_seed import print_session; print_session()"]
    running = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for seed in ("0", "1", "424242")
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set(said)) == 1
    assert int(said[0].split()[0]) > 100
