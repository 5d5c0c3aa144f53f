"""Serves a folder as a model of the Hugging Face hub, on loopback, for the tests of downloads."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import threading
from collections.abc import Iterator

COMMIT = 'c' * 40


@contextlib.contextmanager
def serve(name: str, folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the server's address, and the list of paths that were requested."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            path = self.path.partition('?')[0]
            if path.startswith(f'/api/models/{name}/'):
                siblings = [{'rfilename': file.name} for file in folder.iterdir()]
                content = json.dumps({'id': name, 'sha': COMMIT, 'siblings': siblings}).encode()
                if '/tree/' in path:
                    files = [
                        {'type': 'file', 'path': f.name, 'size': f.stat().st_size, 'oid': '0'} for f in folder.iterdir()
                    ]
                    content = json.dumps(files).encode()
                self._send(content, {'Content-Type': 'application/json'})
            elif path.startswith(f'/{name}/resolve/') and (folder / pathlib.Path(path).name).is_file():
                content = (folder / pathlib.Path(path).name).read_bytes()
                tag = hashlib.sha256(content).hexdigest()
                self._send(content, {'ETag': f'"{tag}"', 'X-Repo-Commit': COMMIT})
            else:
                self.send_response(404)
                self.send_header('X-Error-Code', 'RepoNotFound')
                self.send_header('Content-Length', '0')
                self.end_headers()

        do_HEAD = do_GET

        def _send(self, content, headers):
            self.send_response(200)
            for header, value in ({'Content-Length': str(len(content))} | headers).items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == 'GET':
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}', paths
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
