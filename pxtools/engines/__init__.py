"""The engine room: the only floor that knows ipyparallel."""

from pxtools.engines.cluster import Connection, connect, find, start
from pxtools.engines.wire import Call, Reply, Wire

__all__ = ["Call", "Connection", "Reply", "Wire", "connect", "find", "start"]
