"""What is sent as a picture and is none that is decoded here: its name, and what its sender can do."""

from __future__ import annotations

import re
from typing import NamedTuple

_CONVERT = "convert it to JPEG or PNG"
_UNPACK = "unpack it and send the pictures in it"
_STREAM = "for video use `parallel-infer stream`, or send single frames"
_DOWNLOAD = "look at what was downloaded; the address or the access may be wrong"
_BASE64 = "send its bytes, decoded with base64.b64decode"
_TEXT_MODE = "it was read or sent as text; open it in binary mode ('rb')"
_DEVELOP = "develop it to JPEG or TIFF"
_BOM = rb"(?:\xef\xbb\xbf)?"
_ADDRESS = rb"(?:https?|file|s3|gs|rtsp)://|/[\w.-]+/|[\w./\\: -]{1,200}\.(?:jpe?g|png|webp|gif|bmp|tiff?)\Z"


class _Guise(NamedTuple):
    """A name, the beginning that gives it away, and the advice."""

    name: str
    beginning: re.Pattern[bytes]
    advice: str


def _guise(name: str, beginning: bytes, advice: str) -> _Guise:
    return _Guise(name, re.compile(beginning, re.DOTALL), advice)


_PICTURES = (
    _guise("HEIC", rb"....ftyp(?:hei[cxms]|hev[cmx])", _CONVERT + " (heif-convert, pillow-heif)"),
    _guise("HEIC", rb"....ftyp(?:mif1|msf1).{0,200}?(?:hei[cxms]|hev[cmx])", _CONVERT + " (heif-convert, pillow-heif)"),
    _guise("HEIF", rb"....ftyp(?:mif[123]|msf1|avci|avcs|jpeg|vvic|miaf)", _CONVERT),
    _guise("JPEG XL", rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", _CONVERT + " (djxl)"),
    _guise("JPEG XR", rb"II\xbc", _CONVERT),
    _guise("raw camera", rb"....ftypcrx |IIR[OS]|MMOR|IIU\x00|FUJIFILMCCD-RAW|FOVb|\x00MRM", _DEVELOP),
    _guise("Photoshop (PSD)", rb"8BPS", _CONVERT),
    _guise("GIMP (XCF)", rb"gimp xcf", _CONVERT),
    _guise("SVG", _BOM + rb"\s*<(?:svg\b|(?!(?i:!doctype html))[?!].*?(?:<|DOCTYPE )svg\b)", "render it to PNG"),
    _guise("Windows icon", rb"\x00\x00[\x01\x02]\x00[^\x00]", _CONVERT),
    _guise("Apple icon", rb"icns", _CONVERT),
    _guise("Netpbm", rb"P[1-7]\s|P[Ff]\s", _CONVERT),
    _guise("OpenEXR", rb"v/1\x01", _CONVERT),
    _guise("Radiance HDR", rb"#\?(?:RADIANCE|RGBE)", _CONVERT),
    _guise("QOI", rb"qoif", _CONVERT),
    _guise("DirectDraw (DDS)", rb"DDS ", _CONVERT),
    _guise("BPG", rb"BPG\xfb", _CONVERT),
    _guise("FLIF", rb"FLIF", _CONVERT),
    _guise("MNG or JNG", rb"\x8a[MJ]NG\r\n\x1a\n|\x8bJNG\r\n\x1a\n", _CONVERT),
    _guise("FITS", rb"SIMPLE  =", _CONVERT),
    _guise("Sun raster", rb"\x59\xa6\x6a\x95", _CONVERT),
    _guise("Windows metafile", rb"\xd7\xcd\xc6\x9a|\x01\x00\x00\x00.{36} EMF", _CONVERT),
    _guise("DICOM", rb".{128}DICM", "export its pictures as PNG"),
    _guise("DjVu", rb"AT&TFORM", _CONVERT),
    _guise("KTX texture", rb"\xabKTX ", _CONVERT),
)  # fmt: skip

_OTHERS = (
    _guise("a PDF document", rb"\s*%PDF", "render its pages to PNG (pdftoppm)"),
    _guise("a PostScript document", rb"%!PS|\xc5\xd0\xd3\xc6", "render its pages to PNG"),
    _guise("a video (Matroska or WebM)", rb"\x1aE\xdf\xa3", _STREAM),
    _guise("a video (AVI)", rb"RIFF....AVI ", _STREAM),
    _guise("a sound file", rb"RIFF....WAVE|ID3|fLaC|....ftypM4A", "send pictures"),
    _guise("a video (MP4 or QuickTime)", rb"....(?:ftyp|moov|mdat|wide|free)", _STREAM),
    _guise("a video (Flash)", rb"FLV\x01", _STREAM),
    _guise("a video (MPEG)", rb"\x00\x00\x01[\xba\xb3]|G.{187}G.{187}G", _STREAM),
    _guise("a video (H.264 or H.265)", rb"\x00?\x00\x00\x01[\x67\x27\x47\x40\x42\x09\x46]", _STREAM),
    _guise("a video (Ogg)", rb"OggS", _STREAM),
    _guise("a video (Windows Media)", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _STREAM),
    _guise("a ZIP archive, or a document or array file made as one", rb"PK(?:\x03\x04|\x05\x06)", _UNPACK),
    _guise("gzip data", rb"\x1f\x8b", _UNPACK),
    _guise("a Zstandard archive", rb"\x28\xb5\x2f\xfd", _UNPACK),
    _guise("a bzip2 archive", rb"BZh[1-9]", _UNPACK),
    _guise("an xz archive", rb"\xfd7zXZ\x00", _UNPACK),
    _guise("a 7-Zip archive", rb"7z\xbc\xaf\x27\x1c", _UNPACK),
    _guise("a RAR archive", rb"Rar!\x1a\x07", _UNPACK),
    _guise("a tar archive", rb".{257}ustar", _UNPACK),
    _guise("a NumPy array file", rb"\x93NUMPY", "load it with numpy.load and send the array"),
    _guise("an ONNX or other model, or pickled data", rb"\x80[\x02-\x05].{0,12}|\x08[\x01-\x0d]\x12", "send pictures"),
    _guise("a program", rb"\x7fELF|MZ|#!/", "send pictures"),
    _guise("a JPEG or PNG that text handling damaged", rb"\xef\xbf\xbd|\xc3\xbf\xc3\x98|\xc2\x89PNG", _TEXT_MODE),
    _guise("a PNG whose line ends were converted", rb"\x89PNG|PNG\r?\n", _TEXT_MODE),
    _guise("a data URL", rb"data:[\w/+.-]*[;,]", _BASE64 + " from behind its comma"),
    _guise("a picture in base64", rb"/9j/|iVBORw0KGg|UklGR|R0lGOD|SUkqA|TU0AK", _BASE64),
    _guise("an HTML page", _BOM + rb"\s*(?:<!--.*?-->\s*)?<(?i:!doctype\s+html|html|head|body)\b", _DOWNLOAD),
    _guise("an XML document", _BOM + rb"\s*<\?xml", _DOWNLOAD),
    _guise("an HTTP response with its head", rb"HTTP/\d", "send its body only"),
    _guise("a multipart form", rb"--[^\r\n]{1,200}\r\nContent-", "send the part that is the picture, without its head"),
    _guise("JSON text", rb"\s*[{\[][\s\"{\[\]}\d-]", _DOWNLOAD),
    _guise("a Git LFS pointer", rb"version https://git-lfs", "fetch the file itself (git lfs pull)"),
    _guise("a path or an address", _ADDRESS, "send the bytes that it leads to"),
    _guise("zeros only", rb"\x00{32}", "look whether the file was written to its end"),
)  # fmt: skip


def explain(start: bytes) -> str:
    """What a payload that begins so is, and what to do; `start` is its first 512 bytes, or fewer."""
    for name, beginning, advice in _PICTURES:
        if beginning.match(start):
            return f"{name} pictures are not supported: {advice}"
    for name, beginning, advice in _OTHERS:
        if beginning.match(start):
            return f"not a picture but {name} (starts with {start[:12]!r}): {advice}"
    if (at := max(start.find(b"\xff\xd8\xff"), start.find(b"\x89PNG\r\n"))) > 0:
        return f"not a picture: starts with {start[:12]!r}, and a picture begins {at} bytes later: send it from there"
    if start.isascii() and start.decode("ascii").isprintable():
        return f"not a picture but text: starts with {start[:12]!r}"
    return f"not a picture: starts with {start[:12]!r}"
