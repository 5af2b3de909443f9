"""A server on this machine that misbehaves on request."""

import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content` the way `server.how` says; counts requests and their ranges."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        self.close_connection = True
        how = self.server.how
        step = how.pop(0) if len(how) > 1 else how[0]
        getattr(self, f"_{step}")()

    def _start(self):
        """Where the answer starts, and its headers sent."""
        content, asked = self.server.content, self.headers.get("Range")
        condition = self.headers.get("If-Range")
        start = 0
        if asked and condition in (None, self.server.tag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
        self.send_response(206 if start else 200)
        if start:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.send_header("ETag", self.server.tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        return start

    def _well(self):
        start = self._start()
        if start is not None:
            self.wfile.write(self.server.content[start:])

    def _cut(self):
        """Half of what is missing, then hang up."""
        start = self._start()
        content = self.server.content
        if start is not None:
            self.wfile.write(content[start : start + (len(content) - start + 1) // 2])

    def _stall(self):
        """Half, then silence."""
        self._cut()
        self.wfile.flush()
        time.sleep(1.2)

    def _silent(self):
        time.sleep(1.2)

    def _hang_up(self):
        self.connection.shutdown(socket.SHUT_RDWR)

    def _no_range(self):
        self.headers.replace_header("Range", "") if self.headers.get("Range") else None
        del self.headers["Range"]
        self._well()

    def _wrong_range(self):
        """Claims to go on elsewhere than was asked."""
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 0-9/{len(self.server.content)}")
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(self.server.content[:10])

    def _rubbish(self):
        self.wfile.write(b"\x00\xff not http at all\r\n\r\n")

    def _page(self):
        """A friendly error page with a friendly status."""
        body = b"<html><body>Please sign in</body></html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunked(self, whole=True):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        content = self.server.content
        half = len(content) // 2
        for piece in (content[:half], content[half:]) if whole else (content[:half],):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if whole:
            self.wfile.write(b"0\r\n\r\n")

    def _chunked_cut(self):
        self._chunked(whole=False)

    def _flood(self):
        """No length, and no end."""
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(1000):
                self.wfile.write(bytes(1 << 16))
        except OSError:
            pass

    def _repacked(self):
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"abc")

    def _gone(self):
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _busy(self):
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _away(self):
        self.send_response(302)
        self.send_header("Location", "http://example.invalid/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _moved(self):
        self.send_response(302)
        self.send_header("Location", "/file")
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serving(content, *how):
    """Serve bytes; the n-th request is answered in the n-th way, the last way stays."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.content, server.how, server.tag, server.ranges = content, list(how), '"one"', []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/file"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
