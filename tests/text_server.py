"""A server on this machine that speaks OpenAI's chat protocol, and says what a test tells it to."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class TextServer(ThreadingHTTPServer):
    """Use as a context. says: (status, text) for a request's body. requests: the bodies that came."""

    def __init__(self, says):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.says, self.requests = says, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> "TextServer":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({**body, "path": self.path, "key": self.headers["Authorization"]})
        status, content = self.server.says(body)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        data = json.dumps(reply if status == 200 else {"error": {"message": content}}).encode()
        self.send_response(status)
        if status == 307:
            self.send_header("Location", content)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def words(body: dict) -> tuple[int, str]:
    """What a good text model would say: a digit for a motion score, else the prompt and more."""
    rules, prompt = (message["content"] for message in body["messages"])
    return 200, "5" if "digit" in rules else f'<think>hm</think> "{prompt}, in soft light"'
