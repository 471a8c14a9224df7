"""What the tests of the data layer share: tiny data sets in both formats, wheels and archives, and a local server."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from pathlib import Path

import pytest

RATINGS = [(2, 10, 5, 881250949), (1, 2, 3, 881250950), (10, 2, 1, 881250951), (1, 10, 4, 881250952), (2, 1412, 2, 7)]
OFFICIAL = {  # id, title, genres: names after the flags of u.item
    2: ("GoldenEye (1995)", "1995", ("Action", "Thriller")),
    10: ("Misérables, Les (1995) ", "1995", ("Drama", "Musical")),
    267: ("never rated (1990)", "1990", ("Film-Noir",)),
    1412: ("Land Before Time III: The Time of the Great Giving (1995) (V)", "V", ("Animation", "Children's")),
}


@pytest.fixture
def official_files(tmp_path: Path) -> Path:
    """A handful of ratings in the official files of MovieLens-100K, items not in the order of their ids."""
    from fewrec.data.readers.movielens_100k import GENRES

    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "u.data").write_text("".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS))
    lines = []
    for item, (title, _, genres) in reversed(OFFICIAL.items()):
        flags = "|".join(str(int(genre in genres)) for genre in GENRES)
        lines.append(f"{item}|{title}|01-Jan-2001||http://example.org|{flags}\n")
    (folder / "u.item").write_bytes("".join(lines).encode("latin-1"))
    (folder / "u.user").write_text("10|53|F|other|94043\n1|24|M|technician|85711\n2|23|M|writer|32067\n")
    return folder


@pytest.fixture
def recbole_files(tmp_path: Path) -> Path:
    """The same ratings in RecBole's atomic files, as its copy writes titles, years and genres."""
    folder = tmp_path / "recbole"
    folder.mkdir()
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "u.inter").write_text(header + "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS))
    lines = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"]
    for item, (title, year, genres) in OFFICIAL.items():
        title = title.removesuffix(" (V)") if year == "V" else title.strip().removesuffix(f" ({year})")
        lines.append(f"{item}\t{title}\t{year}\t{' '.join(reversed(genres))}\n")
    (folder / "u.item").write_text("".join(lines), encoding="utf-8")
    users = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    (folder / "u.user").write_text(
        users + "1\t24\tM\ttechnician\t85711\n2\t23\tM\twriter\t32067\n10\t53\tF\tother\t94043\n"
    )
    return folder


class LocalServer:
    """Serves ``content`` on every path; ``script`` holds one answer for each request to come, then all is well.

    An answer is a status (500), ``"cut"`` (the connection ends halfway) or ``"slow"``. ``requests`` has (path, range).
    """

    def __init__(self) -> None:
        self.content = b""
        self.ranges = True
        self.script: list = []
        self.requests: list = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/data.zip"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append((handler.path, wanted))
        step = self.script.pop(0) if self.script else None
        if isinstance(step, int):
            handler.send_error(step)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if step == "slow":
            threading.Event().wait(0.5)
        handler.wfile.write(body[: len(body) // 2] if step == "cut" else body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server():
    local = LocalServer()
    yield local
    local.close()


@pytest.fixture
def zip_of(tmp_path: Path):
    """Return a function that makes a ZIP archive of {member: bytes} and returns its path."""

    def make(members: dict[str, bytes], name: str = "data.zip") -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return path

    return make


@pytest.fixture
def wheel_of(zip_of, tmp_path: Path, monkeypatch):
    """Return a function that makes a wheel of {member: bytes} which pip, told to look nowhere else, will find."""

    def make(members: dict[str, bytes], name: str = "tiny_data", version: str = "1.0") -> str:
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        wheel = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        zip_of(
            {**members, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel, f"{info}/RECORD": b""},
            f"{name}-{version}-py3-none-any.whl",
        )
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        return f"{name}=={version}"

    return make


@pytest.fixture
def card_of():
    """Return a function that makes a data set's card with the given sources."""
    from fewrec.data.cards import Card

    def make(*sources: dict, **changes) -> Card:
        entries = {
            "name": "tiny",
            "title": "A tiny data set",
            "licence": "none",
            "citation": "none",
            "homepage": "none",
            "scale": {"low": 1, "high": 5, "step": 1},
            "columns": {"ratings": ["user", "item", "rating"]},
            "expected": {"ratings": 5, "users": 3, "items": 3},
            "sources": list(sources),
        }
        return Card.model_validate(entries | changes)

    return make


@pytest.fixture
def gguf_of(tmp_path: Path):
    """Return a function that writes a Llama of two layers as GGUF, with a tokenizer of bytes, and returns its path.

    ``without`` names a tensor to leave out, ``spoilt`` one to fill with NaN.
    """
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")

    def make(
        file: str = "tiny/model.gguf", architecture: str = "llama", without: str = "", spoilt: str = "", seed: int = 0
    ) -> Path:
        import numpy as np
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        width, inner, layers = 16, 32, 2
        tokens = ["<|endoftext|>", *bytes_to_unicode().values(), "th", "the"]
        shapes = {"token_embd": (len(tokens), width), "output_norm": (width,)}
        for i in range(layers):
            shapes |= {f"blk.{i}.{name}": (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
            shapes |= {f"blk.{i}.ffn_gate": (inner, width), f"blk.{i}.ffn_up": (inner, width)}
            shapes |= {f"blk.{i}.ffn_down": (width, inner)}
            shapes |= {f"blk.{i}.attn_norm": (width,), f"blk.{i}.ffn_norm": (width,)}
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(str(path), architecture)
        writer.add_context_length(64)
        writer.add_embedding_length(width)
        writer.add_block_count(layers)
        writer.add_feed_forward_length(inner)
        writer.add_head_count(4)
        writer.add_head_count_kv(4)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10000.0)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types([3] + [1] * (len(tokens) - 1))
        writer.add_token_merges(["t h", "th e"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)
        rng = np.random.default_rng(seed)
        for name, shape in shapes.items():
            values = rng.normal(0, 0.3, shape).astype(np.float32)
            if name != without:
                writer.add_tensor(f"{name}.weight", values * np.float32("nan") if name == spoilt else values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


@pytest.fixture
def sha():
    return lambda content: hashlib.sha256(content).hexdigest()
