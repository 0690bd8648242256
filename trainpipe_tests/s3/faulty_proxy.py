"""A proxy in front of an S3 server that fails as networks and servers do: with errors, silence, cut connections and lost answers.

It forwards bytes as they are, so signatures stay valid. It is a process of its own: some calls of delta-rs keep Python's lock while they
wait for an answer. Which requests meet which fault is the test's to say, by `Faults`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal
from urllib.parse import urlsplit

from trainpipe_tests.forks import forks

Fault = Literal["500", "503", "slow down", "no answer", "cut", "cut answer", "lost answer", "lost behind 500", "late answer"]
FAULTS: tuple[Fault, ...] = ("500", "503", "slow down", "no answer", "cut", "cut answer", "lost answer", "lost behind 500")

LATE_SECONDS = 0.1  # "late answer" is no failure

_CODES = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "lost behind 500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "ServiceUnavailable", "Service is unable to handle request."),
    "slow down": (503, "SlowDown", "Please reduce your request rate."),
}
_FORWARDED = ("cut answer", "lost answer", "lost behind 500")  # the server has done what was asked


@dataclass(frozen=True)
class Faults:
    """Which requests fail, and how: of those that `only` names, the first `times`, each with so much probability."""

    kinds: tuple[Fault, ...]
    probability: float = 1.0
    times: int | None = None
    only: Literal["all", "commits", "reads"] = "all"
    seed: int = 0


NONE = Faults(())


@dataclass
class _Proxy:
    upstream: str
    faults: Faults = NONE
    met: Counter[str] = field(default_factory=Counter)
    _open: set[asyncio.Task[None] | None] = field(default_factory=set)

    def set(self, faults: Faults) -> Counter[str]:
        """What requests meet from now on; what they met before."""
        met, self.met = self.met, Counter()
        self.faults, self._random = faults, random.Random(faults.seed)
        return met

    def _fault_of(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        """The next request's fate."""
        commit = method == "PUT" and "if-none-match" in headers and "/_delta_log/" in path
        meant = {"all": True, "commits": commit, "reads": method == "GET" and "list-type" not in path}[self.faults.only]
        spent = self.faults.times is not None and self.met.total() >= self.faults.times
        if not self.faults.kinds or not meant or spent or self._random.random() >= self.faults.probability:
            return None
        kind = self._random.choice(self.faults.kinds)
        self.met[kind] += 1
        return kind

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        task = asyncio.current_task()
        self._open.add(task)  # the loop itself keeps weak references only
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        with suppress(ConnectionError):
            writer.close()
        self._open.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection goes on."""
        line, headers, head = await _read_head(reader)
        if "expect" in headers:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _read_body(reader, headers)
        method, path, _ = line.split(" ", 2)
        fault = self._fault_of(method, path, headers)
        if fault == "no answer":
            await asyncio.sleep(3600)
        if fault == "late answer":
            await asyncio.sleep(LATE_SECONDS)
            fault = None
        if fault == "cut":
            return False
        answer, whole = await self._ask(method, head, body) if fault is None or fault in _FORWARDED else (b"", True)
        if fault == "lost answer":
            return False
        if fault == "cut answer":
            writer.write(answer[: max(1, len(answer) - max(1, len(answer) // 3))])
            await writer.drain()
            return False
        writer.write(_error(*_CODES[fault]) if fault else answer)
        await writer.drain()
        return whole

    async def _ask(self, method: str, head: bytes, body: bytes) -> tuple[bytes, bool]:
        """The server's answer, as it came, and whether its end was told by a length."""
        server = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(server.hostname, server.port)
        try:
            writer.write(head + body)
            await writer.drain()
            line, headers, answer = await _read_head(reader)
            if method == "HEAD" or line.split(" ")[1] in ("204", "304"):
                return answer, True
            return answer + await _read_body(reader, headers), True
        finally:
            writer.close()


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """The first line, the headers by lower-case name, and the bytes of both; `Expect` is answered here and not handed on."""
    lines = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n").split(b"\r\n")
    pairs = [line.decode("latin-1").split(":", 1) for line in lines[1:]]
    headers = {name.lower(): value.strip() for name, value in pairs}
    kept = [line for line in lines if not line.lower().startswith(b"expect:")]
    return lines[0].decode("latin-1"), headers, b"\r\n".join(kept) + b"\r\n\r\n"


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    found = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        found += size + await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        if int(size.split(b";")[0], 16) == 0:
            return found


def _error(status: int, code: str, message: str) -> bytes:
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _serve(upstream: str, control: Connection) -> None:
    """The process of a proxy: tells its port, then takes one `Faults` after the other until the other end is closed."""

    async def run() -> None:
        proxy = _Proxy(upstream)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        control.send(server.sockets[0].getsockname()[1])
        while True:
            control.send(proxy.set(await asyncio.to_thread(control.recv)))

    with suppress(EOFError):
        asyncio.run(run())


@dataclass
class FaultyProxy:
    """A proxy that answers at `endpoint`."""

    endpoint: str
    control: Connection

    def fail(self, faults: Faults = NONE) -> Counter[str]:
        """Let requests fail so from now on; how many met which fault since the last call."""
        self.control.send(faults)
        met = self.control.recv()
        assert isinstance(met, Counter)
        return met


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """A proxy before `upstream` in a process of its own; it fails nothing until told so."""
    context = forks()
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(upstream, there), daemon=True)
    process.start()
    there.close()
    try:
        proxy = FaultyProxy(f"http://127.0.0.1:{here.recv()}", here)
        proxy.fail()
        yield proxy
    finally:
        here.close()
        process.kill()
        process.join(30)
