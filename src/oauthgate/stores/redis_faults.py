"""What goes wrong with a Redis server, said with its cause and its cure.

The server's own words are looked at and never repeated: they can hold a command, and so a key.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from ..errors import StoreError
from .redis_url import Place

# The first word of an error answer (https://redis.io/docs/latest/develop/reference/protocol-spec/,
# "Simple errors"); before Redis 7 a script's error has it further inside.
_ANSWERS = {
    "OOM": "is full (maxmemory): give it more memory; maxmemory-policy must stay noeviction",
    "READONLY": "is a read-only replica: name the primary, or find it with redis+sentinel://",
    "MISCONF": "cannot save to its disk and refuses writes: see its log, and free or repair the disk",
    "NOREPLICAS": "has too few replicas and refuses writes (min-replicas-to-write): bring them back",
    "LOADING": "is loading its data and answers as soon as that is done",
    "MASTERDOWN": "is a replica that has lost its primary: bring the primary back",
    "CLUSTERDOWN": "is a cluster with a part that nobody serves: bring its primaries back",
    "TRYAGAIN": "is moving records between the parts of its cluster: it answers once that is done",
    "MOVED": "is one of a cluster: write the URL with redis+cluster://",
    "BUSY": "is busy with another script: find it with SLOWLOG, and stop it with SCRIPT KILL",
    "WRONGTYPE": "holds other data under our keys: choose another ?prefix=",
    "WRONGPASS": "wants another user or password than the URL's: correct them, percent-encoded",
    "NOPERM": "does not let this user do that: grant +get +mget +getrange +set +del +pexpire +scan "
    "+eval +evalsha +info on the keys of the prefix",
}
# What a script's error says instead of NOPERM.
_ANSWERS["The user executing the script"] = _ANSWERS["NOPERM"]
_WORDS = re.compile(rf"\b({'|'.join(_ANSWERS)})\b")
# By the name of redis-py's class. What is general is looked for last: redis-py wraps some of the others
# in it.
_SPECIAL = {
    "AuthenticationError": _ANSWERS["WRONGPASS"],
    "BusyLoadingError": _ANSWERS["LOADING"],
    "OutOfMemoryError": _ANSWERS["OOM"],
    "ReadOnlyError": _ANSWERS["READONLY"],
    "NoPermissionError": _ANSWERS["NOPERM"],
    "MasterDownError": _ANSWERS["MASTERDOWN"],
    "TryAgainError": _ANSWERS["TRYAGAIN"],
    "AskError": _ANSWERS["MOVED"],
    "ClusterError": _ANSWERS["CLUSTERDOWN"],
    "MasterNotFoundError": "has no sentinel that knows a living primary of this name: "
    "check the sentinels, and the name after the slash",
}
_GENERAL = {
    "TimeoutError": "gave no answer in time: see whether it is overloaded or stopped; "
    "?timeout= and ?connect_timeout= say how long is waited",
    "ConnectionError": "cannot be reached, or broke off: see whether it runs at this address",
    "RedisClusterException": "cannot be used as a cluster: see whether it runs at this address, "
    "with cluster-enabled, and serves all slots",
}


def store_error(place: Place, error: BaseException) -> StoreError:
    """`error` of redis-py, or of the sockets under it, as what the gate understands."""
    return StoreError(f"Redis at {place}: {_reason(error)}")


def _reason(error: BaseException) -> str:
    chain = list(_chain(error))
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in chain):
        return "shows a certificate that is not trusted here: name its authority with ?ca="
    if any(isinstance(each, ssl.SSLError) for each in chain):
        return "does not agree on TLS: see whether this port speaks it, and wants a client's certificate"
    for each in chain:
        if found := _WORDS.search(str(each)):
            return _ANSWERS[found[1]]
    for classes in (_SPECIAL, _GENERAL):
        for each in chain:
            for base in type(each).__mro__:
                if base.__name__ in classes:
                    return classes[base.__name__]
    return f"failed with {type(error).__name__}: see its log"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(5):
        if error is not None:
            yield error
            error = error.__cause__ or error.__context__
