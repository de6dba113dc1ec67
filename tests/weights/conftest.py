"""A weights folder of its own, the commands, and a hub on this machine that counts what it is asked for."""

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from geodream_lib import cli


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder; what a command sets for its process is put back."""
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("GEODREAM_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    return tmp_path / "weights"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `geodream weights ...`: exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["weights", *(str(argument) for argument in arguments)])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def sd_folder(golden: Path, tmp_path: Path) -> Path:
    """A small Stable Diffusion as a user has it: copied, to be damaged at will."""
    return shutil.copytree(golden / "vsd" / "sd_base", tmp_path / "sd", symlinks=True)


class Hub:
    """Repositories by name, each a folder.

    `cut` breaks the connection after so many bytes of a file, once; `lies` are sent in the place of a file; those of
    `gated` repositories are for who accepted their terms.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.requests: list[str] = []
        self.cut: dict[str, int] = {}
        self.lies: dict[str, bytes] = {}
        self.gated: set[str] = set()

    def commit(self, name: str) -> str:
        return hashlib.sha1(name.encode()).hexdigest()

    def listing(self, name: str) -> dict:
        folder, siblings = self.repositories[name], []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            entry = {"rfilename": path.relative_to(folder).as_posix(), "size": len(content), "blobId": "0" * 40}
            if path.suffix in (".safetensors", ".ckpt"):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return {"id": name, "sha": self.commit(name), "siblings": siblings}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            listed = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
            name = (listed or file or [None, ""])[1]
            if name not in hub.repositories:
                return self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            if listed:
                return self.answer(200, json.dumps(hub.listing(name)).encode(), Content_Type="application/json")
            if name in hub.gated:
                return self.answer(403, b"{}", X_Error_Code="GatedRepo")
            content = (hub.repositories[name] / file[2]).read_bytes()
            tag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X_Repo_Commit": hub.commit(name)}
            content = hub.lies.get(file[2], content)
            if self.command == "HEAD":
                return self.answer(200, content, Accept_Ranges="bytes", **tag)
            hub.requests.append(f"{name}/{file[2]} {self.headers.get('Range', '')}".strip())
            start = int(re.search(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
            stop = hub.cut.pop(file[2], None)
            if stop is None:
                where = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
                return self.answer(206 if start else 200, content[start:], **where, **tag)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:stop])
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    template = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield hub
    server.shutdown()
    server.server_close()
