"""A stand-in for Hugging Face's server on this machine."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """A server of repositories. repositories: {name: {commit: {file: bytes}}}; the last commit of each is `main`."""

    def __init__(self, repositories):
        self.repositories, self.asked = repositories, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body):
                hub.asked.append(self.path)
                status, headers, content = hub.answer(self.path.split("?")[0])
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path):
        """(status, headers, content) of a path."""
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        whole = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name, revision = (about[1], about[3] or "main") if about else (whole[1], whole[2]) if whole else ("", "")
        commits = self.repositories.get(name, {})
        commit = revision if revision in commits else next(reversed(commits), None) if revision == "main" else None
        if commit is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        files = commits[commit]
        if about and about[2] == "tree":
            rows = [{"type": "file", "path": f, "size": len(x), "oid": commit} for f, x in files.items()]
            return 200, {"Content-Type": "application/json"}, json.dumps(rows).encode()
        if about:
            told = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
            return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()
        content = files.get(whole[3])
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        etag = hashlib.sha256(content).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, content
