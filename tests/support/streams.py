"""A server on this machine that sends Motion JPEG, as network cameras do, and breaks off."""

import contextlib
import http.server
import threading

import cv2


class Handler(http.server.BaseHTTPRequestHandler):
    """Each connection but the first, which asks what it is, sends the next of `server.parts`.

    A part is an iterable of images; an event in it is waited for. After the last one the
    connection is closed. Without parts it is refused.
    """

    def do_GET(self):
        if not self.server.parts:
            return self.send_error(503)
        self.server.connections += 1
        asks = self.server.connections == 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        if asks:
            return None
        for image in self.server.parts.pop(0):
            if isinstance(image, threading.Event):
                image.wait(60)
                continue
            data = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + data + b"\r\n")
            except OSError:
                return None  # nobody listens any more
        return None

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def streaming(parts):
    """A server whose `address` is a stream of these parts, see the Handler."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.parts, server.connections = parts, 0
        server.address = f"http://127.0.0.1:{server.server_port}/camera"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
