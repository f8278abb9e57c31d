"""Files of two kinds at once: archives with something else in, before or behind them; model files that are none.

Each is refused with a reason, or imported as what it says it is and nothing more.
"""

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile
from dataclasses import dataclass

from tests.hostile_archives import Hostile
from tests.hostile_tars import END, entry, summed, tar
from tests.hostile_zips import Part, make_zip
from tests.unit.prepare.model_folders import LLAMA, safetensors_bytes, tokenizer_text

from dockyard.errors import Reason

_KIND = Reason.ARCHIVE_KIND_MISMATCH
_PATH = Reason.ARCHIVE_PATH_REFUSED
_UNREADABLE = Reason.ARCHIVE_UNREADABLE
_WEIGHTS = Reason.WEIGHTS_UNREADABLE
_CONFIG = Reason.CONFIG_UNREADABLE
_TOKENIZER = Reason.TOKENIZER_UNREADABLE

_TAR, _ZIP = tar(entry("config.json")), make_zip(Part())
_HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
_ELF = b"\x7fELF\x02\x01\x01" + bytes(600)
_PNG = b"\x89PNG\r\n\x1a\n" + bytes(600)
_PDF = b"%PDF-1.7\n" + bytes(600)


class _Calls:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("a pickle ran",)


_PICKLE = pickle.dumps(_Calls())


def _torch_zip() -> bytes:
    """As `torch.save` writes it: a zip with a pickle inside."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", _PICKLE)
        archive.writestr("archive/version", "3")
    return out.getvalue()


def _tar_named_as(magic: bytes) -> bytes:
    """The first bytes of a tar are its first file's name."""
    block = bytearray(entry("x" * len(magic) + "config.json")[:512])
    block[: len(magic)] = magic
    return summed(block) + b"{}" + bytes(510) + END


POLYGLOTS: tuple[Hostile, ...] = tuple(
    Hostile(name, extension, lambda content=content: content, reason)
    for name, extension, content, reason in (
        ("gzip with a tar inside", "tar", gzip.compress(_TAR), _KIND),
        ("gzip with a tar inside and a zip behind", "tar", gzip.compress(_TAR) + _ZIP, _KIND),
        ("gzip with a tar inside and a zip behind", "zip", gzip.compress(_TAR) + _ZIP, _KIND),
        ("bzip2 with a tar inside", "tar", bz2.compress(_TAR), _KIND),
        ("xz with a tar inside", "tar", lzma.compress(_TAR), _KIND),
        ("zip with a tar behind", "zip", _ZIP + _TAR, _KIND),
        ("zip with a tar behind", "tar", _ZIP + _TAR, _KIND),
        ("zip with a script behind", "zip", _ZIP + b"\n#!/bin/sh\nrm -rf /\n", _KIND),
        ("zip with a zip behind", "zip", _ZIP + _ZIP, _UNREADABLE),
        ("tar with a zip behind", "zip", _TAR + _ZIP, _KIND),
        ("tar with a tar behind", "tar", _TAR + _TAR, _KIND),
        ("tar with a gzip behind", "tar", _TAR + gzip.compress(_TAR), _KIND),
        ("tar in the hole of a zip", "zip", make_zip(Part(), before=_TAR), _KIND),
        ("zip in a file of a tar, sent as a zip", "zip", tar(entry("m.zip", _ZIP)), _KIND),
        ("zip made by torch.save", "tar", _torch_zip(), _KIND),
        ("picture with a zip behind", "zip", _PNG + _ZIP, _KIND),
        ("page with a zip behind", "zip", _HTML + _ZIP, _KIND),
        ("program with a zip behind", "zip", _ELF + _ZIP, _KIND),
        ("program with a zip behind", "tar", _ELF + _ZIP, _KIND),
        ("PDF with a zip behind", "zip", _PDF + _ZIP, _KIND),
        ("GGUF with a zip behind", "zip", b"GGUF" + bytes(600) + _ZIP, _KIND),
        ("tar that begins as a program", "tar", _tar_named_as(b"\x7fELF\x02\x01\x01"), _PATH),
        ("tar that begins as a gzip", "tar", _tar_named_as(b"\x1f\x8b\x08"), _PATH),
        ("tar that begins as a pickle", "tar", _tar_named_as(b"\x80\x04\x95"), _PATH),
        ("tar that begins as a script", "tar", _tar_named_as(b"#!/bin/sh\n"), _PATH),
        ("pickle", "tar", _PICKLE, _KIND),
        ("pickle with a tar behind", "tar", _PICKLE + _TAR, _KIND),
        ("page", "zip", _HTML, _KIND),
    )
)

_WEIGHT = safetensors_bytes({"w": ("F32", [2, 3], bytes(24))})
_INSIDE = safetensors_bytes({"w": ("U8", [len(_ZIP)], _ZIP)})
GOOD: dict[str, bytes] = {
    "config.json": json.dumps(LLAMA).encode(),
    "model.safetensors": _WEIGHT,
    "tokenizer.json": tokenizer_text().encode(),
}


@dataclass(frozen=True)
class Disguised:
    """A model whose file `name` has the `content` of something else; `reason` None: imported, and only read as data."""

    name: str
    what: str
    content: bytes
    reason: Reason | None

    def __str__(self) -> str:
        return f"{self.name} that is {self.what}"


DISGUISED: tuple[Disguised, ...] = (
    Disguised("config.json", "a pickle", _PICKLE, _CONFIG),
    Disguised("config.json", "a page", _HTML, _CONFIG),
    Disguised("config.json", "a zip", _ZIP, _CONFIG),
    Disguised("config.json", "a safetensors file", _WEIGHT, _CONFIG),
    Disguised("config.json", "a GGUF file", b"GGUF" + bytes(64), _CONFIG),
    Disguised("config.json", "itself and a pickle", GOOD["config.json"] + _PICKLE, _CONFIG),
    Disguised("config.json", "itself and a zip", GOOD["config.json"] + _ZIP, _CONFIG),
    Disguised("config.json", "itself in UTF-16", GOOD["config.json"].decode().encode("utf-16"), _CONFIG),
    Disguised("config.json", "itself behind a mark of UTF-8", b"\xef\xbb\xbf" + GOOD["config.json"], _CONFIG),
    Disguised("model.safetensors", "a pickle", _PICKLE, _WEIGHTS),
    Disguised("model.safetensors", "what torch.save writes", _torch_zip(), _WEIGHTS),
    Disguised("model.safetensors", "a page", _HTML, _WEIGHTS),
    Disguised("model.safetensors", "a GGUF file", b"GGUF" + bytes(64), _WEIGHTS),
    Disguised("model.safetensors", "itself and a zip", _WEIGHT + _ZIP, _WEIGHTS),
    Disguised("model.safetensors", "itself behind a zip", _ZIP + _WEIGHT, _WEIGHTS),
    Disguised("model.safetensors", "a zip in the bytes of a tensor", _INSIDE, None),
    Disguised(
        "model.safetensors",
        "itself with a header in UTF-16",
        (lambda text: len(text).to_bytes(8, "little") + text)("{}".encode("utf-16")),
        _WEIGHTS,
    ),
    Disguised("tokenizer.json", "a pickle", _PICKLE, _TOKENIZER),
    Disguised("tokenizer.json", "a page", _HTML, _TOKENIZER),
    Disguised("tokenizer.json", "a zip", _ZIP, _TOKENIZER),
    Disguised("tokenizer.json", "itself and a zip", GOOD["tokenizer.json"] + _ZIP, _TOKENIZER),
    Disguised("tokenizer_config.json", "a pickle", _PICKLE, _TOKENIZER),
    Disguised("tokenizer_config.json", "a page", _HTML, _TOKENIZER),
    Disguised("generation_config.json", "a pickle", _PICKLE, _CONFIG),
    Disguised("README.md", "a zip", _ZIP, None),
    Disguised("LICENSE", "a program", _ELF, None),
    Disguised("pytorch_model.bin", "a pickle beside the weights", _PICKLE, None),
)
