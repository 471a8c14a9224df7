"""A server on this machine that gives one archive slowly, or only half of it, and counts who asked."""

from __future__ import annotations

import http.server
import threading
import time

_PARTS = 40


class SlowServer:
    """Serves ``content`` on every path over ``seconds``; with ``cut`` the connection ends halfway, every time."""

    def __init__(self) -> None:
        self.content, self.seconds, self.cut = b"", 0.0, False
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/ratings.zip"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.requests += 1
        wanted = handler.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        size = max(1, -(-len(body) // _PARTS))
        try:
            for begin in range(0, len(body) // 2 if self.cut else len(body), size):
                handler.wfile.write(body[begin : begin + size])
                time.sleep(self.seconds / _PARTS)
        except OSError:
            pass  # who asked was killed

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
