"""A server on this machine that speaks as much of the Hugging Face hub's protocol as a download takes."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(models: Mapping[str, Mapping[str, bytes]], checksum: str = "") -> Iterator[str]:
    """Serves files by their names, of models by theirs, at the address that it yields. checksum: said of all files."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            owner_and_name, _, rest = self.path.removeprefix("/api/models").lstrip("/").partition("?")[0].partition("/")
            name, _, rest = rest.partition("/")
            files = models.get(f"{owner_and_name}/{name}")
            kind, _, of = rest.partition("/")
            if files is None:
                return self._answer(401, b"", {"x-error-code": "RepoNotFound", "x-error-message": "not found"})
            if kind in ("revision", "resolve") and of.partition("/")[0] not in ("main", REVISION):
                return self._answer(404, b"", {"x-error-code": "RevisionNotFound"})
            if self.path.startswith("/api/models/"):
                siblings = [
                    {"rfilename": file, "lfs": {"sha256": said(data), "size": len(data), "pointerSize": 100}}
                    for file, data in files.items()
                ]
                card = {"license": "mit"}
                known = {"id": f"{owner_and_name}/{name}", "sha": REVISION, "siblings": siblings, "cardData": card}
                return self._answer(200, json.dumps(known).encode(), {"content-type": "application/json"})
            data = files[of.partition("/")[2]]
            return self._answer(200, data, {"x-repo-commit": REVISION, "etag": f'"{said(data)}"'})

        do_HEAD = do_GET  # noqa: N815

        def _answer(self, code, data, headers):
            self.send_response(code)
            for name, value in {**headers, "content-length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    def said(data: bytes) -> str:
        return checksum or hashlib.sha256(data).hexdigest()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
