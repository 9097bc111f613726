"""The trading day and week: when they begin, and what a changed midnight does to them."""

from datetime import datetime, timedelta

from mqd_ledger.sessions import midnight
from mqd_ledger.state import Period, State


def start_day(state: State, at: datetime) -> None:
    starts_at = midnight(at, state.policy.day_starts)
    state.day = Period(starts_at, midnight(starts_at + timedelta(hours=36), state.policy.day_starts), state.equity)
    if at >= state.week.ends_at:
        state.week = Period(monday(starts_at, state), monday(starts_at, state, weeks=1), state.equity)
    window = timedelta(seconds=state.policy.limits.duplicate_window or 0)
    state.recent_requests = {key: then for key, then in state.recent_requests.items() if at - then <= window}


def start_day_again(state: State, at: datetime) -> None:
    """A policy with another midnight moves the end of the day and of the week, never their loss so far."""
    starts_at = midnight(at, state.policy.day_starts)
    if starts_at != state.day.starts_at:
        state.day.ends_at = midnight(starts_at + timedelta(hours=36), state.policy.day_starts)
        state.week.ends_at = monday(starts_at, state, weeks=1)


def monday(starts_at: datetime, state: State, weeks: int = 0) -> datetime:
    """The start of the week that holds a day, or of a later one."""
    days = timedelta(days=7 * weeks - starts_at.weekday(), hours=12)
    return midnight(starts_at + days, state.policy.day_starts)
