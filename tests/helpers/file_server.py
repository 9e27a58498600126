"""A web server on this machine whose faults are chosen: for tests of downloads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class FileServer:
    """Gives ``content`` at every address.

    Attributes:
        content: the file.
        ranges: understand requests for a part.
        announce: tell the length.
        breaks_after: close the connection after this many bytes of an answer's body.
        missing: answer that there is no such file.
        requests: the Range header of every request, "" for none.
    """

    content: bytes
    ranges: bool = True
    announce: bool = True
    breaks_after: int | None = None
    missing: bool = False
    requests: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    """A server for the duration of the block; ``url`` is of a file "weights.bin"."""
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.requests.append(asked)
            if state.missing:
                self.send_error(404)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and state.ranges else 0
            whole = len(state.content)
            if start >= whole > 0:
                self.send_error(416)
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            if state.announce:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.breaks_after])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/some/weights.bin"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
