"""Moving records to the newest secret: what an older one sealed is opened and sealed anew.

Each record by a compare-and-swap on its version, with its expiry as it was, while the site serves: a
concurrent change wins, is read again, and has been sealed with the newest secret already. Nothing but
the records themselves says how far it came, so it may be killed and started again at any moment.
"""

from __future__ import annotations

from .errors import Conflict, SealError
from .seal import Keys, key_id_of
from .stores import Record, Store
from .vault import COPY_MARK

#: Left to its ten seconds of life. Whoever holds a lease takes a changed version for a lost lease, and
#: would throw away a refresh that was under way.
LEFT_ALONE = "lease/"
#: What is kept in clear, because nobody who writes or reads it has a key (`copying.py`).
UNSEALED = frozenset({COPY_MARK})


async def reseal(store: Store, keys: Keys, key: str, record: Record) -> bool:
    """Seal one record with the first secret; whether it was this call that did.

    Raises `SealError` for a value that no configured secret opens, `StoreError`.
    """
    found: Record | None = record
    while found is not None and key_id_of(found.value) != keys.key_id:
        try:
            plaintext = keys.open(key, found.value)
        except SealError:
            # Of a record that was changed meanwhile by a process that has a newer secret than we.
            again = await store.get(key)
            if again is None or again.value == found.value:
                raise
            found = again
            continue
        try:
            await store.put(
                key, keys.seal(key, plaintext), expires_at=found.expires_at, expect=found.version
            )
        except Conflict:
            found = await store.get(key)
            continue
        return True
    return False
