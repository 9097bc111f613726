"""A simulated month in one go: a trader that must not grow, at a loopback server where now and then something goes wrong.

    python tools/soak.py                                 21 sessions with light faults, about eight minutes
    python tools/soak.py --sessions 3 --faults heavy

The trader is a process of its own; its memory, open files and threads are looked at every few seconds of a Unix machine's clock.
It fails if, after the first tenth, memory has grown by more than a fifth (and the cache of the ledger's pages, which fills as the
ledger grows) or more than ten files are open in addition, if the trader ends by itself, or if ledger and broker do not agree at the
end (as `mqd-ledger crashtest` compares them).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mqd_ledger.app import SAMPLE_BEGINS
from mqd_ledger.crashtest.compare import Verdict
from mqd_ledger.crashtest.session import HALTS, SWITCHES, SYMBOLS, Trader, judged, prepare, settings_at, truth
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.loopback.faults import Faults
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.sessions import sessions_between

SPEED = 1200  # market seconds in one of the wall: a session in twenty seconds
CYCLE = 15  # minutes in which the strategies go in and out
LOOK_SECONDS = 3.0
GROWTH_MAX = 0.2  # of memory
PAGES = (
    16  # megabytes of the ledger that SQLite keeps at hand (store/connections.py), and only has once there are so many
)
FILES_MAX = 10  # more than there were
SETTLED = 0.1  # of the time: caches and libraries are filled by then


class Sample(NamedTuple):
    at: str  # market time
    megabytes: float
    files: int | None
    threads: int | None


def look(pid: int, at: str) -> Sample:
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    process = Path(f"/proc/{pid}")
    if not process.exists():  # not Linux
        return Sample(at, int(told) / 1024, None, None)
    files, threads = (len(list((process / what).iterdir())) for what in ("fd", "task"))
    return Sample(at, int(told) / 1024, files, threads)


def soak(
    sessions: int, speed: int, seed: int, faults: str, directory: Path
) -> tuple[list[Sample], list[Verdict], Counter[str]]:
    prepare(directory)
    planned = Faults(seed=seed) if faults == "none" else Faults.seeded(seed, faults)
    planned.add(HALTS)
    bars = sample_bars(
        SYMBOLS, sessions=sessions + 2, seed=seed
    )  # it must not be over before the trader has come to rest
    calendar = sessions_between(SAMPLE_BEGINS, SAMPLE_BEGINS + timedelta(days=2 * sessions + 10))
    end = [session.close_at for session, _ in zip(calendar, range(sessions), strict=False)][-1]
    samples: list[Sample] = []
    with LoopbackServer(
        bars, seed=seed, speed=speed, directory=directory / "broker", switches=SWITCHES, faults=planned
    ) as server:
        trader = Trader(directory / "soak.ledger", server.rest_url, settings_at(speed, CYCLE))
        with trader.running() as process:
            while (now := server.clock.now()) < end and process.poll() is None:
                time.sleep(LOOK_SECONDS)
                samples.append(look(process.pid, f"{now:%Y-%m-%d %H:%M}"))
            server.call(planned.plan.clear)
            trader.come_to_rest(process)
        account = truth(server)
    verdicts, record = judged(trader, account)
    print(
        f"{record.sent:,} orders sent, {record.sent_again} of them again, {record.fills:,} fills; {dict(record.differences)}"
    )
    return samples, [*verdicts, *growth(samples)], Counter(one.kind for one in planned.happened)


def growth(samples: Sequence[Sample]) -> list[Verdict]:
    """From the first tenth on, by the highest of what came before and of what came in the last tenth."""
    tenth = max(1, int(len(samples) * SETTLED))
    before, after = samples[: 2 * tenth], samples[-tenth:]
    memory = [max(one.megabytes for one in part) for part in (before, after)]
    files = [max(one.files or 0 for one in part) for part in (before, after)]
    return [
        Verdict(
            "memory stays",
            memory[1] <= memory[0] * (1 + GROWTH_MAX) + PAGES,
            f"{memory[0]:.0f} MB, later {memory[1]:.0f} MB",
        ),
        Verdict("open files stay", files[1] <= files[0] + FILES_MAX, f"{files[0]}, later {files[1]}"),
    ]


def show(samples: Sequence[Sample]) -> None:
    print(f"{'':<14}{'market time':<18}{'memory':>10}{'files':>8}{'threads':>9}")
    last = len(samples) - 1
    for name, place in (
        ("first", 0),
        ("first tenth", last // 10),
        ("quarter", last // 4),
        ("half", last // 2),
        ("last", last),
    ):
        one = samples[place]
        print(f"{name:<14}{one.at:<18}{one.megabytes:>7.0f} MB{one.files or '-':>8}{one.threads or '-':>9}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=21)
    parser.add_argument("--speed", type=int, default=SPEED)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--faults", choices=["none", "light", "heavy"], default="light")
    parser.add_argument("--directory", type=Path, help="a new or empty folder; without it nothing is kept")
    chosen = parser.parse_args()
    if os.name == "nt":
        sys.exit("tools/soak.py looks at a process with `ps`, which Windows does not have. Run it on Linux or macOS.")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mqd-soak-") as folder:
        samples, verdicts, happened = soak(
            chosen.sessions, chosen.speed, chosen.seed, chosen.faults, chosen.directory or Path(folder)
        )
    print(
        f"{chosen.sessions} sessions in {time.monotonic() - began:.0f} s; at the broker: {dict(happened.most_common())}"
    )
    show(samples)
    for verdict in verdicts:
        print(f"{'pass' if verdict.holds else 'FAIL'}  {verdict.sentence}: {verdict.detail}")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
