"""The machine itself, the settings and the keys."""

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import statistics
import tempfile
import time
from datetime import UTC

from mqd_ledger.doctor.base import FAIL, OK, WARN, Found, Patient
from mqd_ledger.live_safety import NEEDED, Asked
from mqd_ledger.sessions import HORIZON

SPACE_WARN, SPACE_MIN = 2 * 10**9, 2 * 10**8  # bytes
FSYNC_WARN = 0.05  # seconds; every turn waits for one
FSYNC_TIMES = 5
HORIZON_WARN = 90  # days
PLACEHOLDER = re.compile(r"\.\.|…|[<>\[\]]")  # what examples have where a key belongs


def python(_patient: Patient) -> Found:
    return OK, f"{platform.python_implementation()} {platform.python_version()} on {platform.platform(terse=True)}", ""


def libraries(_patient: Patient) -> Found:
    """The installed ones against the pins."""
    try:
        required = importlib.metadata.requires("mqd-ledger") or []
    except importlib.metadata.PackageNotFoundError:
        return (
            WARN,
            "this program is not installed, so its libraries' versions are not known",
            "python3 tools/dev.py paper",
        )
    pins = [tuple(one.partition(";")[0].strip().split("==")) for one in required if "==" in one]
    wrong = [f"{name} {_version(name)} instead of {version}" for name, version in pins if _version(name) != version]
    if wrong:
        return WARN, "; ".join(wrong), "Install what was tested: pip install --require-hashes -r requirements.lock"
    return OK, f"{len(pins)}, each of the version that was tested", ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def disk_space(patient: Patient) -> Found:
    free = shutil.disk_usage(patient.folder).free
    text = f"{free / 10**9:,.1f} GB free for {patient.ledger}"
    if free < SPACE_MIN:
        return FAIL, text, "Make room: a ledger that cannot be written stops trading."
    return (WARN, text, "Make room soon.") if free < SPACE_WARN else (OK, text, "")


def disk_speed(patient: Patient) -> Found:
    """How long it takes until what was written is on the disk."""
    times = []
    with tempfile.NamedTemporaryFile(dir=patient.folder, prefix="mqd-ledger-doctor-") as file:
        for _ in range(FSYNC_TIMES):
            started = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    middle = statistics.median(times)
    text = f"{middle * 1000:.1f} ms until a write is on the disk"
    return (WARN, text, "Every turn waits for that: use a local disk.") if middle > FSYNC_WARN else (OK, text, "")


def port(_patient: Patient) -> Found:
    """May a server listen on this machine?"""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return OK, "a server can listen on 127.0.0.1", ""


def settings(patient: Patient) -> Found:
    if patient.settings_problems:
        return FAIL, "; ".join(patient.settings_problems), "`mqd-ledger config check` tells them one by one."
    return OK, f"valid, broker {patient.broker_name}", ""


def keys(patient: Patient) -> Found:
    for half in (patient.keys.key_id, patient.keys.secret):
        if PLACEHOLDER.search(half):
            text = f"what stands in {patient.keys.found_in} is the example's dots or brackets, and no key"
            return FAIL, text, "Put in the keys that Alpaca's web page shows."
    return OK, f"{patient.environment} key {patient.keys.shown} from {patient.keys.found_in}", ""


def key_file(patient: Patient) -> Found:
    """Who else may read `.env`."""
    if patient.keys.warnings:
        return WARN, patient.keys.warnings[0].partition(": ")[0], patient.keys.warnings[0].partition(": ")[2]
    return OK, "nobody else may read the keys" if os.name == "posix" else "its rights are not looked at here", ""


def live_trading(patient: Patient) -> Found:
    """What `run --live` will ask for."""
    if patient.environment != "live":
        return OK, "not asked for: paper is traded", ""
    missing = [
        needed.otherwise
        for needed in NEEDED
        if not needed.is_there(Asked(patient.settings, live_flag=True, symbols_chosen=patient.symbols_chosen))
    ]
    if missing:
        return WARN, "real money is not traded yet", " ".join(missing)
    return OK, "allowed by the settings; `run --live` asks for a typed confirmation", ""


def calendar(patient: Patient) -> Found:
    days = (HORIZON - patient.clock().astimezone(UTC).date()).days
    text = f"the exchange's hours are known until {HORIZON}"
    if days < 1:
        return FAIL, text, "Install a newer version: without hours nothing can be traded."
    return (WARN, text, "Install a newer version soon.") if days < HORIZON_WARN else (OK, text, "")
