"""Name a file that is no safetensors file by its first bytes. No numpy."""

from __future__ import annotations

import re

START = 320
"""Bytes that are read to tell formats apart."""
_FORMATS = {
    b"GGUF": "is a GGUF model",
    b"\x89PNG\r\n": "is a PNG image",
    b"\xff\xd8\xff": "is a JPEG image",
    b"RIFF": "is a WebP image or another RIFF file",
    b"%PDF-": "is a PDF document",
    b"\x93NUMPY": "is an array of numpy",
    b"7z\xbc\xaf\x27": "is a 7z archive",
    b"Rar!\x1a\x07": "is a RAR archive",
    b"\x1f\x8b\x08": "is a gzip archive",
    b"\x28\xb5\x2f\xfd": "is a Zstandard archive",
    b"\xfd7zXZ\x00": "is an XZ archive",
    b"BZh": "is a bzip2 archive",
}
"""First bytes of other formats. None begins a safetensors file: its header would be too long."""
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
UNPICKLE = "a pickle can run any program when it is read; convert --unpickle reads it with torch's weights_only"
AGAIN = "download it again, or name a LoRA file; those are safetensors files"
_LOGIN = "the site wants a login or another address; download the file again"
_UNPACK = "unpack it, and name the LoRA file in it"
_TAR = slice(257, 262)
_SHORT = 100


def other_format(start: bytes, *, named: bool) -> tuple[str, str] | None:
    """Return the format of another file and a hint, or None.

    Args:
        start: its first :data:`START` bytes.
        named: whether its name ends in .safetensors.
    """
    if not any(start):
        return "is empty" if not start else "begins with zeros, as a download that was cut short", "download it again"
    if start[8:9] == b"{":  # as the JSON of a header begins, which may well be 0x…0280 bytes long
        return None
    return _text(start) or _binary(start, ", despite its name" if named else "")


def _text(start: bytes) -> tuple[str, str] | None:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file it points to", "git lfs pull brings the file; or download it by itself"
    if start.startswith((b"/annex/objects/", b"../.git/annex/objects/", b".git/annex/objects/")):
        return "is a pointer of git-annex, not the file it points to", "git annex get brings the file"
    if text[:1] == b"<" and re.match(rb"<(?:!doctype|html|head|body|\?xml|!--|script|title)", text, re.IGNORECASE):
        return "is a web page that was saved as a file", _LOGIN
    if re.match(rb'\{\s*"(?:error|detail|message)"', text):
        return "is a message of a web server, not a file", _LOGIN
    if len(start) < _SHORT and re.fullmatch(rb"[\x20-\x7e\s]+", start):
        shown = start.decode("ascii").strip()[:60]
        return f"is a short text, as a web server answers without a file: {shown!r}", _LOGIN
    return None


def _binary(start: bytes, despite: str) -> tuple[str, str] | None:
    if start.startswith(PICKLED):
        return "is a pickle of torch, despite its name", UNPICKLE
    if start[_TAR] == b"ustar":
        return f"is a tar archive{despite}", _UNPACK
    what = next((what for begin, what in _FORMATS.items() if start.startswith(begin)), None)
    if what is None:
        return None
    return f"{what}{despite}", _UNPACK if what.endswith("archive") else "LoRA files are safetensors files"
