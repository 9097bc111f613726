"""Everything that can go wrong, and what it means for the program.

    LedgerError                  the command line prints it as one sentence and exits with `exit_code`
    ├── CommandRefused           the request made no sense; nothing was recorded
    ├── BadInput                 a file, an argument, a setting or a query from outside is not usable
    │   └── SettingsInvalid      every problem of a settings file at once
    ├── LedgerLocked             another process writes this ledger; names the holder
    ├── LedgerUnreadable         the file is missing, truncated, locked, full or not a ledger
    ├── BrokenPromise            the log contradicts itself; stop rather than guess
    │   ├── IllegalTransition    an order may not go from this state by this event
    │   ├── UnknownEventType     a stored name that this version does not know
    │   ├── ChainBroken          an event was altered, removed, inserted or moved
    │   └── Conflict             somebody else appended since we last looked
    └── CheckFailed              a verification ran to its end and found something wrong

An outcome that the business expects (a denied order, a rejected bar) is an event, never an error.
"""


class LedgerError(Exception):
    """Base of all of ours. The message is a full sentence: what was found, what is allowed, what to do."""

    exit_code = 2


class CommandRefused(LedgerError):
    """A request that should never have been made."""


class BadInput(LedgerError):
    """Something from outside could not be used."""


class SettingsInvalid(BadInput):
    """Carries one line per problem: path of the key, what was found, what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class LedgerLocked(LedgerError):
    exit_code = 3


class LedgerUnreadable(LedgerError):
    exit_code = 4


class BrokenPromise(LedgerError):
    exit_code = 5


class IllegalTransition(BrokenPromise):
    pass


class UnknownEventType(BrokenPromise):
    pass


class ChainBroken(BrokenPromise):
    exit_code = 1


class Conflict(BrokenPromise):
    pass


class CheckFailed(LedgerError):
    exit_code = 1
