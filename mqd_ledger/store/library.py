"""What lets any eventsourcing application open a ledger: its events as objects of that library, and the factory it asks for."""

from typing import Any

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Mapper, StoredEvent
from eventsourcing.sqlite import SQLiteFactory

from mqd_ledger.envelope import decode, encode
from mqd_ledger.events import STORED_NAME, Event
from mqd_ledger.store.connections import LedgerDatastore
from mqd_ledger.store.recorder import SQLiteLedgerRecorder
from mqd_ledger.store.rows import name_of


class LedgerEvent:
    """An event of ours as an eventsourcing application sees it."""

    def __init__(self, originator_id: str, originator_version: int, event: Event) -> None:
        self.originator_id = originator_id
        self.originator_version = originator_version
        self.event = event


class LedgerMapper(Mapper[str]):
    """Our stored names and JSON on one side, `LedgerEvent` on the other; an application's own events as the library keeps them."""

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> StoredEvent:
        if not isinstance(domain_event, LedgerEvent):
            return super().to_stored_event(domain_event)
        event = domain_event.event
        return StoredEvent(
            domain_event.originator_id, domain_event.originator_version, STORED_NAME[type(event)], encode(event)
        )

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[str]:
        if ":" in stored_event.topic:  # module:Class, as the library names them
            return super().to_domain_event(stored_event)
        event = decode(stored_event.topic, stored_event.state)
        return LedgerEvent(name_of(stored_event.originator_id), stored_event.originator_version, event)


class Factory(SQLiteFactory):
    """What PERSISTENCE_MODULE=mqd_ledger.store gives an application."""

    # Of a `LedgerDatastore`, which is made below.
    application_recorder_class = SQLiteLedgerRecorder  # type: ignore[assignment]

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        library = self.datastore
        self.datastore = LedgerDatastore(
            library.pool.db_name,
            lock_timeout=library.pool.lock_timeout,
            originator_id_type="uuid"
            if (self.env.get(self.ORIGINATOR_ID_TYPE) or "text").lower() == "uuid"
            else "text",
        )
        library.close()
