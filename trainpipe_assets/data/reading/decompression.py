"""The bytes of a landed file as a stream of plain UTF-8: decompressed and transcoded a piece at a time, in bounded memory.

Knows nothing of records. Damage is told apart from a storage fault: only the first is the file's fault.
"""

import codecs
import gzip
import zlib
from typing import BinaryIO, Protocol, cast

import pyarrow as pa

from trainpipe_assets.data.sources import Compression

PIECE = 1 << 16  # bytes asked of a decompressor at once: what is lost with damage, since the whole piece fails
UTF8 = "utf-8"
_MARKS = {  # the longer ones first, since one begins like another
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_UNMARKED = {"utf-8-sig": UTF8, "utf-16": "utf-16-le", "utf-32": "utf-32-le"}  # what those are that a mark is expected of, without one
_KEEP_INVALID = "trainpipe_invalid"


class BrokenStream(ValueError):
    """The compressed data is damaged or ends early; everything before was delivered."""


class ByteStream(Protocol):
    """A source of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most about `size` bytes, b"" at the end only."""


class FaultRecorder:
    """A file that remembers the storage fault that a C++ library, reading through it, would hand on as its own."""

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw
        self.fault: OSError | None = None

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return self.raw.closed

    def read(self, size: int = -1, /) -> bytes:
        """Read, and remember a failure."""
        try:
            return self.raw.read(size)
        except OSError as error:
            self.fault = error
            raise

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move the position."""
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self.raw.tell()

    def seekable(self) -> bool:
        """Whether the position can be moved."""
        return self.raw.seekable()

    def readable(self) -> bool:
        """Always so."""
        return True

    def writable(self) -> bool:
        """Never so."""
        return False

    def flush(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """Left to whoever opened the file."""


class GzipStream:
    """A gzip file of one or more members."""

    def __init__(self, raw: BinaryIO) -> None:
        self._members = gzip.GzipFile(fileobj=raw)

    def read(self, size: int, /) -> bytes:
        """Decompressed bytes.

        Raises:
            BrokenStream: the data is damaged or ends early.
        """
        try:
            return self._members.read1(min(size, PIECE))
        except EOFError as error:
            raise BrokenStream("the gzip data ends early: the file was cut off, or is still being written") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BrokenStream(f"the gzip data is damaged ({error})") from error


class ZstdStream:
    """A Zstandard file of one or more frames."""

    def __init__(self, raw: BinaryIO) -> None:
        self._recorder = FaultRecorder(raw)
        self._frames = pa.CompressedInputStream(pa.PythonFile(self._recorder, mode="r"), "zstd")

    def read(self, size: int, /) -> bytes:
        """Decompressed bytes.

        Raises:
            BrokenStream: the data is damaged or ends early.
        """
        try:
            return cast(bytes, self._frames.read(min(size, PIECE)))
        except (OSError, pa.ArrowException) as error:
            if self._recorder.fault is not None:
                raise self._recorder.fault from error
            if "truncated" in str(error).lower():
                raise BrokenStream("the Zstandard data ends early: the file was cut off, or is still being written") from error
            raise BrokenStream(f"the Zstandard data is damaged ({error})") from error


class Utf8Stream:
    """Text as UTF-8, whatever its `encoding`. A byte order mark is dropped, and says more than `encoding` does.

    What is not valid in the source encoding comes out as bytes that are not valid UTF-8 either: it is the record's problem.
    """

    def __init__(self, source: ByteStream, encoding: str = UTF8) -> None:
        self._source = source
        self._encoding = encoding
        self._head: bytes | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._finished = False

    def read(self, size: int, /) -> bytes:
        """UTF-8 bytes. Raises BrokenStream as the source does."""
        if self._head is None:
            self._open()
        piece = self._head or self._source.read(size)
        self._head = b""
        return self._transcode(piece, size) if self._decoder else piece

    def _open(self) -> None:
        """Read the byte order mark, if there is one."""
        head = b""
        while len(head) < max(map(len, _MARKS)) and (piece := self._source.read(PIECE)):
            head += piece
        mark = next(filter(head.startswith, _MARKS), b"")
        self._head = head.removeprefix(mark)
        encoding = _MARKS[mark] if mark else _UNMARKED.get(self._encoding, self._encoding)
        if encoding != UTF8:
            self._decoder = codecs.getincrementaldecoder(encoding)(errors=_KEEP_INVALID)

    def _transcode(self, piece: bytes, size: int) -> bytes:
        assert self._decoder is not None
        text = b""
        while not text and not self._finished:
            text = self._decoder.decode(piece, final=not piece).encode("utf-8", "surrogatepass")
            self._finished = not piece
            piece = b"" if self._finished or text else self._source.read(size)
        return text


def _invalid(error: UnicodeError) -> tuple[str, int]:
    """Half a surrogate pair for what cannot be decoded, which is no valid UTF-8, and where to go on behind it."""
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", max(error.end, error.start + 1)


codecs.register_error(_KEEP_INVALID, _invalid)


def as_utf8(raw: BinaryIO, compression: Compression | None, encoding: str) -> Utf8Stream:
    """The text of `raw`, which is compressed so and in this `encoding`."""
    return Utf8Stream(decompressed(raw, compression), encoding)


def decompressed(raw: BinaryIO, compression: Compression | None) -> ByteStream:
    """The bytes of `raw` without their compression."""
    if compression == "gz":
        return GzipStream(raw)
    return ZstdStream(raw) if compression == "zst" else raw
