"""An S3 server of the kind that must not hold a lake: it takes every put, whatever condition the put names."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EMPTY = b'<?xml version="1.0"?><ListBucketResult><Name>lake</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>'
MISSING = b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
REFUSED = b"<Error><Code>PreconditionFailed</Code><Message>it is there</Message></Error>"
UNKNOWN = b"<Error><Code>NotImplemented</Code><Message>A header implies functionality that is not implemented</Message></Error>"


@contextmanager
def careless_server(kind: str) -> Iterator[tuple[str, list[str]]]:
    """Endpoint, and every put and delete so far as `PUT key`.

    `kind`: "ignores" takes every put; "slow to notice" sees what is there but not what arrives at the same moment; "refuses" does not
    know the header.
    """
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            known = f"PUT {self.path}" in seen
            seen.append(f"PUT {self.path}")
            conditional = self.headers.get("If-None-Match") == "*"
            if conditional and kind == "refuses":
                self._answer(501, UNKNOWN)
            elif conditional and kind == "slow to notice" and known and "-twice" in self.path:
                self._answer(412, REFUSED)
            else:
                self._answer(200, b"")

        def do_GET(self) -> None:
            self._answer(200, EMPTY) if "list-type" in self.path else self._answer(404, MISSING)

        def do_DELETE(self) -> None:
            seen.append(f"DELETE {self.path}")
            self._answer(204, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
