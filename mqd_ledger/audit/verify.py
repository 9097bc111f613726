"""Prove a ledger: its chain is whole, its decisions would be taken again, its projections say what its events say.

Each proof ends in a `Finding`; a failed one names the first event that does not fit. A proof that needs an earlier one to hold is
not tried without it.
"""

from pathlib import Path
from typing import NamedTuple

from mqd_ledger import chain
from mqd_ledger.audit.redecide import redecide
from mqd_ledger.audit.rerun import ReactorsOf, rerun
from mqd_ledger.errors import BadInput, BrokenPromise, LedgerError
from mqd_ledger.log import LogReader
from mqd_ledger.projector import Projector, Tables, project
from mqd_ledger.snapshots import Snapshots, wrong_fields
from projections import TABLES


class Finding(NamedTuple):
    name: str
    passed: bool
    detail: str


def verify(ledger: Path, rerun_with: ReactorsOf | None = None) -> list[Finding]:
    """Every proof that can be tried, in order; with reactors, also that strategies and broker would do the same again."""
    with LogReader.open(ledger) as log:
        findings = [_chain(log), _storage(log)]
        if findings[0].passed:
            findings.append(_decisions(log))
            findings.append(_projections(ledger, log))
            findings += _snapshot(ledger, log)
            if rerun_with is not None:
                findings.append(_rerun(log, rerun_with))
    return findings


def _chain(log: LogReader) -> Finding:
    try:
        head = chain.check(log.rows())
    except LedgerError as broken:
        return Finding("chain", passed=False, detail=str(broken))
    return Finding(
        "chain",
        passed=True,
        detail=f"{head.position} events, none altered, missing, moved or inserted; {head.hash.hex()}",
    )


def _storage(log: LogReader) -> Finding:
    """The index over the streams is no part of the chain, but a writer and `why` find their way by it."""
    try:
        problems = log.recorder.problems()
    except LedgerError as broken:
        problems = [str(broken)]
    if problems:
        detail = f"the file is damaged: {'; '.join(problems)}; export the log and import it again, or restore a backup"
        return Finding("storage", passed=False, detail=detail)
    return Finding("storage", passed=True, detail="pages and indexes of the file are sound")


def _decisions(log: LogReader) -> Finding:
    try:
        count = redecide(log.replay())
    except BrokenPromise as different:
        return Finding("decisions", passed=False, detail=str(different))
    return Finding("decisions", passed=True, detail=f"{count} recorded inputs give the recorded events again")


def _snapshot(ledger: Path, log: LogReader) -> list[Finding]:
    """What the next start would begin with, against a fold of the whole log; nothing where there is none."""
    snapshots = Snapshots(ledger, read_only=True)
    compared = wrong_fields(log, snapshots)
    if compared is None:
        return []
    position, wrong = compared
    if wrong:
        detail = f"the state kept at event {position} has another {', '.join(wrong)} than the log gives; delete {snapshots.folder}"
        return [Finding("snapshot", passed=False, detail=detail)]
    return [Finding("snapshot", passed=True, detail=f"the state kept at event {position} is what the log gives")]


def _rerun(log: LogReader, reactors: ReactorsOf) -> Finding:
    try:
        count = rerun(log, reactors)
    except (BrokenPromise, BadInput) as different:
        return Finding("rerun", passed=False, detail=str(different))
    return Finding(
        "rerun", passed=True, detail=f"strategies, and a simulated broker, did the same again in {count} runs"
    )


def _projections(ledger: Path, log: LogReader) -> Finding:
    """The tables that people look at, against tables built anew from the log."""
    projector = Projector(ledger)
    projector.catch_up()
    with Tables(projector.connect()) as stored:
        # As of one instant: a writer, and others who catch up with it, may go on meanwhile.
        position = stored.hold()
        prints = {name: stored.fingerprint(name) for name in TABLES}
    with project(log.rows(upto=position)) as rebuilt:
        wrong = [name for name in TABLES if prints[name] != rebuilt.fingerprint(name)]
    if wrong:
        detail = f"the stored {', '.join(wrong)} differ from a rebuild; delete {projector.cache_path} and look again"
        return Finding("projections", passed=False, detail=detail)
    return Finding("projections", passed=True, detail=f"{len(TABLES)} tables equal a rebuild")
