"""A server on this machine whose downloads are cut off, corrupted, redirected or sent in pieces."""

import contextlib
import hashlib
import http.server
import re
import threading


def named(content, stem="weights"):
    return f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}_20201017.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; each request uses up the first of `server.mishaps`, (kind, value)."""

    def do_GET(self):
        path, wanted = self.path.partition("?")[0], self.headers.get("Range")
        self.server.requests.append((path, wanted))
        mishap, value = self.server.mishaps.pop(0) if self.server.mishaps else (None, None)
        if mishap == "status":
            return self.send_error(value)
        if mishap == "redirect":
            self.send_response(302)
            self.send_header("Location", value)
            self.send_header("Content-Length", str(10 * len(self.server.redirect_body)))
            self.end_headers()
            return self.wfile.write(self.server.redirect_body)
        if path not in self.server.files:
            return self.send_error(404)
        content = self.server.files[path]
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if start >= len(content) and wanted:
            return self.send_error(416)
        if mishap == "ignore range":
            start = 0
        self.send_response(206 if start else 200)
        if start:
            first = start - value if mishap == "wrong part" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if mishap in ("type", "type and no length"):
            self.send_header("Content-Type", value)
        if mishap not in ("no length", "type and no length"):
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if mishap == "corrupt":
            body = body[:value] + bytes([body[value] ^ 1]) + body[value + 1 :]
        if mishap == "cut":
            body = body[:value]
        size = value if mishap == "pieces" else max(1, len(body))
        for offset in range(0, len(body), size):
            self.wfile.write(body[offset : offset + size])
        return None

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(files):
    """A server of `files`, {path: bytes}; its lists `requests` and `mishaps` are the Handler's."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = files
        server.mishaps, server.requests, server.redirect_body = [], [], b""
        server.address = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
