"""Structs and threads: msgspec describes a struct when it is first decoded, and that is no atomic step.

It evaluates the annotations, which is Python code, with a half-made description already in place. A
second thread that decodes the same struct at that moment reads a null pointer, and the process ends
with SIGSEGV (seen with msgspec 0.22: the first two requests of a threaded server were enough). So
everything that is ever decoded or converted gets its description while its module is imported, which
Python lets one thread do at a time.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def decoder_of(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """The decoder of a struct, made where its module is imported and shared by all threads.

    Making it also prepares the struct for `msgspec.convert`.
    """
    return msgspec.msgpack.Decoder(kind)
