"""A stand-in of the Hub's HTTP interface: what its client asks for to make repositories, commit, list and fetch."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

import yaml


@dataclass
class Hub:
    """What the stand-in holds.

    Args:
        files: the content of each file, by repository and name.
        said: what each repository was made with.
        stored: what was uploaded by its digest, as large files are.
        asked: every request, in order.
        sizes: sizes that it tells in place of the true ones, by name.
    """

    endpoint: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    def commit(self, repo: str) -> str:
        content = repr(sorted((name, hashlib.sha256(own).hexdigest()) for name, own in self.files[repo].items()))
        return hashlib.sha1(content.encode()).hexdigest()


@contextmanager
def stand_in() -> Generator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, content: Any, status: int = 200, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def missing(self) -> None:
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

        def handle_any(self) -> None:
            path = unquote(urlparse(self.path).path)
            hub.asked.append((self.command, path))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            words = path.strip("/").split("/")
            if self.command == "POST" and path == "/api/repos/create":
                said = json.loads(body)
                repo = f"{said.get('organization') or 'me'}/{said['name']}"
                known = repo in hub.files
                hub.said.setdefault(repo, said)
                hub.files.setdefault(repo, {})
                return self.answer({"url": f"{hub.endpoint}/{repo}"}, 409 if known else 200)
            if path == "/api/validate-yaml":
                page = yaml.safe_load(json.loads(body)["content"].split("---")[1])
                return self.answer({"errors": [] if page["tags"] else [{"message": "no tags"}], "warnings": []})
            if path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    own | {"actions": {"upload": {"href": f"{hub.endpoint}/lfs/{own['oid']}"}}}
                    for own in json.loads(body)["objects"]
                ]
                return self.answer({"transfer": "basic", "objects": objects})
            if self.command == "PUT" and words[0] == "lfs":
                hub.stored[words[1]] = body
                return self.answer({})
            repo = "/".join(words[2:4] if words[0] == "api" else words[:2])
            if repo not in hub.files:
                return self.missing()
            if words[0] != "api":
                name = "/".join(words[4:])  # user/name/resolve/revision/file
                if name not in hub.files[repo]:
                    return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
                content = hub.files[repo][name]
                tag = hashlib.sha256(content).hexdigest()
                return self.answer(content, ETag=f'"{tag}"', X_Repo_Commit=hub.commit(repo))
            if words[4:5] == ["preupload"]:
                files = [
                    {
                        "path": own["path"],
                        "uploadMode": "lfs" if own["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for own in json.loads(body)["files"]
                ]
                return self.answer({"files": files})
            if words[4:5] == ["commit"]:
                for line in body.decode().splitlines():
                    own = json.loads(line)
                    if own["key"] == "file":
                        hub.files[repo][own["value"]["path"]] = base64.b64decode(own["value"]["content"])
                    if own["key"] == "lfsFile":
                        hub.files[repo][own["value"]["path"]] = hub.stored[own["value"]["oid"]]
                commit = hub.commit(repo)
                return self.answer({"commitUrl": f"{hub.endpoint}/{repo}/commit/{commit}", "commitOid": commit})
            siblings = [
                {"rfilename": name, "size": hub.sizes.get(name, len(own)), "blobId": "0"}
                for name, own in hub.files[repo].items()
            ]
            told = {"id": repo, "modelId": repo, "sha": hub.commit(repo), "siblings": siblings, "tags": []}
            return self.answer(told | {"private": False, "downloads": 0, "likes": 0})

        do_GET = do_POST = do_PUT = do_HEAD = handle_any

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
