"""A stand-in for Hugging Face's server on this machine."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_stand_in"


class Hub:
    """A server of repositories. repositories: {name: {commit: {file: bytes}}}; the last commit of each is `main`.

    public: names of those that everybody may see. refuse: {beginning of a path: status} to answer instead.
    """

    def __init__(self, repositories):
        self.repositories, self.asked, self.public, self.refuse = repositories, [], set(), {}
        self.large: dict[str, bytes] = {}  # contents that were uploaded by their sums
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.reply(hub.answer, body=False)

            def do_GET(self):
                self.reply(hub.answer)

            def do_POST(self):
                self.take()

            def do_PUT(self):
                self.take()

            def take(self):
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.reply(hub.take, content, self.headers.get("Authorization"))

            def reply(self, answer, *given, body=True):
                hub.asked.append(self.path)
                path = self.path.split("?")[0]
                refused = [status for begin, status in hub.refuse.items() if path.startswith(begin)]
                status, headers, content = (refused[0], {}, b"{}") if refused else answer(path, *given)
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

    def files(self, name):
        """The files of the newest commit."""
        return list(self.repositories[name].values())[-1]

    def answer(self, path):
        """(status, headers, content) of a path that is read."""
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
            return told(rows)
        if about:
            siblings = [{"rfilename": file} for file in files]
            return told({"id": name, "sha": commit, "siblings": siblings, "private": name not in self.public})
        content = files.get(whole[3])
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        etag = hashlib.sha256(content).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, content

    def take(self, path, content, key):
        """(status, headers, content) of a path that is written to. content: bytes. key: the header Authorization."""
        if stored := re.fullmatch(r"/large/(\w+)", path):  # by its address alone, as a store of files does
            assert hashlib.sha256(content).hexdigest() == stored[1]
            self.large[stored[1]] = content
            return 200, {}, b""
        if key != f"Bearer {TOKEN}":
            return 401, {"X-Error-Message": "Invalid token"}, b"{}"
        if path.endswith("/commit/main"):
            return self.commit(path, content.decode().splitlines())
        asked = json.loads(content)
        if path == "/api/repos/create":
            name = f"{asked['organization']}/{asked['name']}"
            there = name in self.repositories
            if not there:
                self.repositories[name] = {"0" * 40: {".gitattributes": b""}}
                if asked.get("visibility") == "public" or asked.get("private") is False:
                    self.public.add(name)
            return told({"url": f"{self.url}/{name}", "id": name}, 409 if there else 200)
        if path.endswith("/preupload/main"):
            files = [file["path"] for file in asked["files"]]
            modes = {file: "lfs" if file.endswith((".safetensors", ".mp4")) else "regular" for file in files}
            return told({"files": [{"path": f, "uploadMode": modes[f], "shouldIgnore": False} for f in files]})
        if path.endswith(".git/info/lfs/objects/batch"):
            rows = [{"oid": row["oid"], "size": row["size"]} for row in asked["objects"]]
            for row in rows:
                if row["oid"] not in self.large:
                    row["actions"] = {"upload": {"href": f"{self.url}/large/{row['oid']}", "header": {}}}
            return told({"transfer": "basic", "objects": rows})
        return told({"errors": [], "warnings": []}) if path == "/api/validate-yaml" else (404, {}, b"{}")

    def commit(self, path, lines):
        """A commit to a repository, of lines of JSON."""
        name = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path)[1]
        files = dict(self.files(name))
        for line in map(json.loads, lines):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repositories[name].pop(oid, None)
        self.repositories[name][oid] = files
        return told({"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})


def told(value, status=200):
    """An answer in JSON."""
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()
