"""Records in Redis or Valkey: one server, behind Sentinel, or a cluster.

Owns: `RedisStore`, how a record is written down, and the scripts. A record is one string,

    1 VERSION EXPIRES\\n and the sealed value

so that a read is one GET. A write is one script on one key, or on the keys of all that belongs together:
it looks at the heads of what is there and writes, in one step
(https://redis.io/docs/latest/develop/programmability/eval-intro/, "Atomicity").

VERSION is drawn at random for every write, from 2^62 numbers: it never returns for a key, also after
the key was deleted or expired, and it is how a write that is sent again after a broken connection
recognizes itself. EXPIRES is compared at every use with our own clock; Redis frees the key `GRACE`
seconds later by its own.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence

from ..errors import Conflict, StoreError
from .base import ABSENT, ANY, Expect, Record, Write
from .recheck import Carried, Question, Recheck, rechecking
from .redis_client import Connections, Part, Script
from .redis_url import read_url
from .redis_watch import RedisSense, RedisWatch
from .watch import Watches, weakly

log = logging.getLogger("oauthgate.store")

#: Seconds between a record's expiry and Redis' freeing it: as far may the clocks of our machines differ.
GRACE = 60
#: Seconds of the longest life that Redis is told; what lives longer is not freed by itself.
LONGEST = 100 * 366 * 86_400
#: Keys that one step of a scan asks for, and records that are read at once.
SCAN_COUNT = 500
READ_COUNT = 100

#: Bytes that hold every head; the scripts below read as many.
HEAD_LENGTH = 64
_HEAD = re.compile(rb"1 ([0-9]+) ([^ \n]+)\n")
# `found` is the version that is there, and `held` the same if it has not expired. A head is far shorter
# than 64 bytes.
_LOOK = """
local function look(key)
    local head = redis.call('GETRANGE', key, 0, 63)
    if head == '' then return nil, nil end
    local found, expires = string.match(head, '^1 (%d+) ([^ \\n]+)\\n')
    if not found then return nil, nil, redis.error_reply('WRONGTYPE not a record') end
    if expires ~= 'never' and tonumber(expires) <= tonumber(ARGV[1]) then return found, nil end
    return found, found
end
"""
# ARGV: now, and for each key: expected version (or any, absent), fresh version, record, milliseconds to
# live (0: for ever). Answers 0, or the number of a write whose expectation does not hold.
_PUT = Script(
    _LOOK
    + """
local refused = 0
for n = 1, #KEYS do
    local expected = ARGV[4 * n - 2]
    local found, held, wrong = look(KEYS[n])
    if wrong then return wrong end
    if found == ARGV[4 * n - 1] then return 0 end
    if (expected == 'absent' and held)
        or (expected ~= 'absent' and expected ~= 'any' and held ~= expected) then
        refused = n
    end
end
if refused > 0 then return refused end
for n = 1, #KEYS do
    redis.call('SET', KEYS[n], ARGV[4 * n])
    if ARGV[4 * n + 1] ~= '0' then redis.call('PEXPIRE', KEYS[n], ARGV[4 * n + 1]) end
end
return 0
"""
)
# ARGV: now, expected version (or any). Answers 1: deleted, 0: nothing was there, -1: another version.
_DELETE = Script(
    _LOOK
    + """
local found, held, wrong = look(KEYS[1])
if wrong then return wrong end
if ARGV[2] ~= 'any' and held ~= ARGV[2] then return -1 end
if found then redis.call('DEL', KEYS[1]) end
return held and 1 or 0
"""
)


class RedisStore:
    """The URLs are in `redis_url.KINDS`. Raises `ConfigError` for one that cannot work."""

    colour = "both"

    def __init__(self, url: str, *, blocking: bool = False) -> None:
        self.place = read_url(url)
        self.blocking = blocking
        self.clock: Callable[[], float] = time.time
        self._prefix = self.place.prefix.encode()
        self._connections = Connections(self.place, blocking=blocking)
        self._looked = False
        where = f"Redis at {self.place}"
        self._carried = Carried()
        ask = rechecking(weakly(self._versions))
        self._watches: Watches[RedisSense] | Watches[Recheck]
        if self.place.kind == "cluster":
            # Each of its servers would have to be listened to; they come and go, and slots move.
            self._watches = Watches(Recheck, ask, where)
        else:
            # In a cluster no step spans the servers on which the keys are.
            self.put_all = self._put_all
            heard = RedisWatch(self.place, self._connections, weakly(self._write_expired), ask)
            self._watches = Watches(RedisSense, heard.follow, where)

    def __repr__(self) -> str:
        return f"RedisStore({str(self.place)!r})"

    async def open(self) -> None:
        if self._looked:
            return
        for server in await self._connections.primaries():
            self._look(await self._connections.about(server))
        self._looked = True

    async def close(self) -> None:
        if not self.blocking:
            await self._watches.close()
        await self._connections.close()

    def watch(self, within: float) -> None:
        """See `base.Watching`."""
        (self._carried if self.blocking else self._watches).start(within)

    def stamp(self, key: str) -> object | None:
        """See `base.Stamped`."""
        return (self._carried if self.blocking else self._watches).stamp(key)

    async def get(self, key: str) -> Record | None:
        question = self._carried.question() if self.blocking else None
        if question is not None:
            return await self._get_and_ask(key, question)
        stored = await self._connections.command("GET", self._prefix + key.encode(), repeat=True)
        return self._live(stored)

    async def put(
        self, key: str, value: bytes, *, expires_at: float | None = None, expect: Expect = ANY
    ) -> int:
        return (await self._put_all([Write(key, value, expires_at, expect)]))[0]

    async def _put_all(self, writes: Sequence[Write]) -> list[int]:
        """See `base.Batching`."""
        now = self.clock()
        versions = [secrets.randbits(62) for _ in writes]
        arguments: list[Part] = [repr(now)]
        for write, fresh in zip(writes, versions, strict=True):
            arguments += _spelt(write, fresh, now)
        refused = await self._connections.script(
            _PUT,
            *(self._prefix + write.key.encode() for write in writes),
            arguments=arguments,
            # Sent again, a write with an expectation finds itself written, and then so are those that
            # belong to it, or the record as it was. One without could undo what somebody wrote since.
            repeat=any(write.expect is not ANY for write in writes),
        )
        if refused:
            key, _, _, expect = writes[refused - 1]
            raise Conflict(f"the record {_kind(key)} is not as the writer expected ({expect!r})")
        return versions

    async def delete(self, key: str, *, expect: Expect = ANY) -> bool:
        # Never sent again: what was deleted leaves no trace by which we would know that it was us.
        deleted = await self._connections.script(
            _DELETE,
            self._prefix + key.encode(),
            arguments=[repr(self.clock()), expect if isinstance(expect, int) else "any"],
            repeat=False,
        )
        if deleted < 0:
            raise Conflict(f"the record {_kind(key)} was changed by another writer")
        return bool(deleted)

    async def scan(self, prefix: str) -> AsyncIterator[tuple[str, Record]]:
        keys = await self._keys(self._prefix + prefix.encode())
        for start in range(0, len(keys), READ_COUNT):
            some = keys[start : start + READ_COUNT]
            for key, stored in zip(some, await self._connections.many(some), strict=True):
                record = self._live(stored)
                if record is not None:
                    yield key.removeprefix(self._prefix).decode(), record

    async def purge(self, now: float) -> int:
        """Nothing is left to drop: Redis frees by itself what expired."""
        return 0

    # --

    async def _write_expired(self, key: str) -> None:
        await self.put(key, b"", expires_at=self.clock())

    async def _get_and_ask(self, key: str, question: Question) -> Record | None:
        stored, heads = await self._connections.value_and_heads(
            self._prefix + key.encode(),
            [self._prefix + each.encode() for each in question.keys],
            HEAD_LENGTH,
        )
        question.recheck.found(question.asked, question.keys, self._alive(question.keys, heads))
        return self._live(stored)

    async def _versions(self, keys: Sequence[str]) -> dict[str, int]:
        heads = await self._connections.heads([self._prefix + key.encode() for key in keys], HEAD_LENGTH)
        return self._alive(keys, heads)

    def _alive(self, keys: Sequence[str], heads: Sequence[bytes]) -> dict[str, int]:
        """The versions of what is there and has not expired."""
        found = {key: self._live(head or None) for key, head in zip(keys, heads, strict=True)}
        return {key: record.version for key, record in found.items() if record is not None}

    def _live(self, stored: bytes | None) -> Record | None:
        if stored is None:
            return None
        head = _HEAD.match(stored)
        if head is None:
            raise StoreError(
                f"Redis at {self.place}: holds what this oauthgate did not write under our keys: "
                "upgrade oauthgate, or choose another ?prefix="
            )
        version, expires = head.groups()
        expires_at = None if expires == b"never" else float(expires)
        if expires_at is not None and expires_at <= self.clock():
            return None
        return Record(stored[head.end() :], int(version), expires_at)

    async def _keys(self, prefix: bytes) -> list[bytes]:
        """All keys there are, without reading them: SCAN, which blocks nobody, of every primary.

        SCAN may name a key twice. It promises to miss none, but only within one life of one server:
        after a restart or failover a cursor means nothing (https://redis.io/docs/latest/commands/scan/).
        """
        pattern = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", prefix) + b"*"
        found: dict[bytes, None] = {}
        for server in await self._connections.primaries():
            life = (await self._connections.about(server)).get("run_id")
            cursor = 0
            while True:
                answer = await self._connections.at(
                    server, "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT
                )
                cursor = int(answer[0])
                found.update((key, None) for key in answer[1] if key.startswith(prefix))
                if cursor == 0:
                    break
            if (await self._connections.about(server)).get("run_id") != life:
                raise StoreError(
                    f"Redis at {self.place}: another server took over during a scan: start it again"
                )
        return list(found)

    def _look(self, about: dict[str, object]) -> None:
        """Refuse a replica, whose reads may be of yesterday; warn of a server that forgets."""
        if about.get("role") in ("slave", "replica"):
            raise StoreError(
                f"Redis at {self.place}: is a replica, expected the primary: name that one, or find it "
                "with redis+sentinel://"
            )
        policy = about.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and about.get("maxmemory"):
            log.warning(
                "Redis at %s drops records when its memory is full (maxmemory-policy %s): users would "
                "lose their links, and used flows could be used again; set maxmemory-policy noeviction",
                self.place,
                policy,
            )


def _spelt(write: Write, fresh: int, now: float) -> list[Part]:
    """One write, as the script takes it."""
    expires, life = b"never", 0
    if write.expires_at is not None:
        expires = repr(float(write.expires_at)).encode()
        life = math.ceil(1000 * min(max(write.expires_at - now + GRACE, 0.001), LONGEST))
    expected: Part = "any"
    if write.expect is ABSENT:
        expected = "absent"
    elif isinstance(write.expect, int):
        expected = write.expect
    return [expected, fresh, b"1 %d %s\n%s" % (fresh, expires, write.value), life]


def _kind(key: str) -> str:
    # A key may hold a hash that names a person: errors speak of the kind of record only.
    return f"{key.partition('/')[0]}/…"
