"""A server on loopback that answers as the Hugging Face Hub does, and goes wrong when it is told to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = 10_000  # bytes from which a file is stored apart (LFS), as weights are
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def etag(data: bytes) -> str:
    """The Hub's name for a content: SHA-256 of large files, git's hash of small ones."""
    if len(data) >= LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """Files by name; ``revisions`` are other branches, ``gated`` asks for a token."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    revisions: dict[str, Repo] = field(default_factory=dict)

    def at(self, revision: str) -> Repo | None:
        if revision in ("main", self.commit):
            return self
        known = {**self.revisions, **{repo.commit: repo for repo in self.revisions.values()}}
        return known.get(revision)


@dataclass
class Hub:
    """Contents of the server, and the faults that it makes.

    Args:
        repos: by ``user/repo``.
        cut: for each download to come, the bytes after which the connection is closed.
        spoil: for how many downloads to come a byte is changed on the way.
        claim: added to the size that is stated of large files.
        delay: seconds for every 64 KiB.
        status: answer everything with this status.
        log: (method, path, Range header) of all requests.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    spoil: int = 0
    claim: int = 0
    delay: float = 0.0
    status: int = 0
    log: list[tuple[str, str, str | None]] = field(default_factory=list)

    def fetched(self) -> list[str]:
        """Names of the files that were sent."""
        return [path.rsplit("/", 1)[1] for method, path, _ in self.log if method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def do_POST(self):
        """Take what a client uploads; files of every size come inside the commit."""
        self.hub.log.append(("POST", self.path, None))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/([^/?]+)(?:\?.*)?", self.path)
        if self.path == "/api/repos/create":
            values = json.loads(body)
            name = f"{values.get('organization') or 'user'}/{values['name']}"
            self.hub.repos.setdefault(name, Repo({}))
            return self.reply({"url": f"{self.hub.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if match is None:
            return self.refuse(404, "")
        if match[2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self.reply({"files": modes})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                self.hub.repos[match[1]].files[value["path"]] = base64.b64decode(value["content"])
        return self.reply({"commitUrl": f"{self.hub.url}/{match[1]}/commit/{COMMIT}", "commitOid": COMMIT})

    def reply(self, values):
        self.send(200, {"Content-Type": "application/json"}, json.dumps(values).encode(), True)

    def answer(self, with_body):
        self.hub.log.append((self.command, self.path, self.headers.get("Range")))
        if self.hub.status:
            return self.refuse(self.hub.status, "")
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/?]+)(?:\?.*)?", self.path)
        if match and match[1] in self.hub.repos:
            return self.tell(*match.groups(), with_body)
        match = re.fullmatch(r"/(?:(cdn)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        repo = self.hub.repos.get(match[2]) if match else None
        if repo is None:
            return self.refuse(401, "RepoNotFound")
        if repo.gated and "Authorization" not in self.headers and not match[1]:
            return self.refuse(403, "GatedRepo")
        revision = repo.at(match[3])
        if revision is None:
            return self.refuse(404, "RevisionNotFound")
        data = revision.files.get(match[4])
        if data is None:
            return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": revision.commit})
        headers = {"X-Repo-Commit": revision.commit, "ETag": f'"{etag(data)}"'}
        if len(data) >= LARGE and not match[1]:
            headers["X-Linked-Etag"] = headers.pop("ETag")
            headers["X-Linked-Size"] = str(len(data) + self.hub.claim)
            port = self.server.server_address[1]
            headers["Location"] = (
                f"http://localhost:{port}/cdn{self.path}"  # another host, as far as names go
            )
            return self.send(302, headers, b"", with_body)
        return self.send_file(data, headers, with_body)

    def tell(self, name, what, at, with_body):
        """Say what commit a revision is, or what files it has."""
        repo = self.hub.repos[name].at(at)
        if repo is None:
            return self.refuse(404, "RevisionNotFound")
        files = []
        for path, data in repo.files.items():
            file = {"type": "file", "path": path, "size": len(data), "oid": etag(data)}
            lfs = {"lfs": {"oid": etag(data), "size": len(data), "pointerSize": 134}}
            files.append(file | lfs if len(data) >= LARGE else file)
        answer = files if what == "tree" else {"id": name, "sha": repo.commit, "siblings": []}
        self.send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode(), with_body)

    def send_file(self, data, headers, with_body):
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if with_body and self.hub.spoil:
            self.hub.spoil -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        stop = self.hub.cut.pop(0) if with_body and self.hub.cut else None
        self.send(206 if start else 200, headers, data[start:], with_body, stop)

    def refuse(self, status, code, headers=None):
        self.send(status, {"X-Error-Code": code, **(headers or {})}, b"", self.command == "GET")

    def send(self, status, headers, body, with_body, stop=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for begin in range(0, len(body) if with_body else 0, 1 << 16):
            piece = body[begin : begin + (1 << 16)]
            if stop is not None and begin + len(piece) > stop:
                self.wfile.write(piece[: stop - begin])
                self.close_connection = True
                return
            self.wfile.write(piece)
            time.sleep(self.hub.delay)


@contextmanager
def served():
    """A running :class:`Hub`."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(hub, folder):
    """Variables that make huggingface_hub and torch.hub use a server and caches in a folder."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "TORCH_HOME": str(folder / "torch"),
    }


def use(hub, folder, monkeypatch):
    """Have this process download from a server, without a token, into caches in a folder."""
    for name, value in environment(hub, folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
