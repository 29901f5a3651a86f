"""Real files of every container with metadata in them, written by Pillow, or chunk by chunk where it cannot."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image as Pil
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mai.types import Image, ImageInfo

NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
}
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
USER_COMMENT, EXIF_IFD = 0x9286, 0x8769
TAGS = {
    "ImageDescription": 0x010E,
    "Make": 0x010F,
    "Model": 0x0110,
    "Software": 0x0131,
    "Artist": 0x013B,
    "Copyright": 0x8298,
    "MakerNote": 0x927C,
}


def image(data: bytes | None) -> Image:
    """What a detector is given."""
    sha = hashlib.sha256(data or b"").hexdigest()
    return Image("file", ImageInfo("?", 64, 48, len(data or b""), sha), data, None)


def pixels(mode: str = "RGB", size: tuple[int, int] = (64, 160), seed: int = 0) -> Pil.Image:
    shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
    return Pil.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), mode)


def xmp_packet(properties: dict[str, str], inside: str = "") -> bytes:
    """A packet with these properties as elements of one description, and `inside` after them."""
    names = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    escaped = {name: value.replace("&", "&amp;").replace("<", "&lt;") for name, value in properties.items()}
    lines = "".join(f"<{name}>{value}</{name}>" for name, value in escaped.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about=""{names}>{lines}{inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


def user_comment(text: str, charset: str = "unicode") -> bytes:
    """As piexif writes it (A1111): big-endian UTF-16; or ASCII."""
    if charset == "unicode":
        return b"UNICODE\0" + text.encode("utf-16-be")
    return b"ASCII\0\0\0" + text.encode()


def exif_block(tags: dict[str, Any]) -> bytes:
    """An EXIF block by Pillow; UserComment goes into the Exif directory."""
    exif = Pil.Exif()
    for name, value in tags.items():
        if name == "UserComment":
            exif.get_ifd(EXIF_IFD)[USER_COMMENT] = user_comment(value) if isinstance(value, str) else value
        else:
            exif[TAGS[name]] = value
    return exif.tobytes()


def encoded(
    container: str,
    *,
    png: dict[str, str] | None = None,
    exif: dict[str, Any] | None = None,
    xmp: dict[str, str] | bytes | None = None,
    size: tuple[int, int] = (64, 160),
) -> bytes:
    """A real file of that container with these fields."""
    stream, picture = io.BytesIO(), pixels(size=size)
    packet = xmp_packet(xmp) if isinstance(xmp, dict) else xmp
    block = exif_block(exif) if exif else None
    options: dict[str, Any] = {"exif": block} if block else {}
    if container == "PNG":
        info = PngInfo()
        for name, value in (png or {}).items():
            info.add_text(name, value)
        if packet:
            info.add_itxt("XML:com.adobe.xmp", packet.decode())
        picture.save(stream, "PNG", pnginfo=info, **options)
    elif container == "TIFF":
        tags = ImageFileDirectory_v2()
        for name, value in (exif or {}).items():
            if name != "UserComment":
                tags[TAGS[name]] = value
                if isinstance(value, bytes):
                    tags.tagtype[TAGS[name]] = 7
            else:
                comment = user_comment(value) if isinstance(value, str) else value
                tags[EXIF_IFD] = {USER_COMMENT: comment}
        if packet:
            tags[700] = packet
            tags.tagtype[700] = 1
        picture.save(stream, "TIFF", tiffinfo=tags)
    elif container == "HEIF":
        import pillow_heif

        pillow_heif.from_pillow(picture).save(
            stream, quality=50, **options, **({"xmp": packet} if packet else {})
        )
    else:
        picture.save(stream, container, **options, **({"xmp": packet} if packet else {}))
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(chunk: bytes, where: str = "late") -> bytes:
    """A PNG with a chunk right before IEND, or right behind it."""
    data = encoded("PNG")
    cut = len(data) - 12
    return data[:cut] + chunk + data[cut:] if where == "late" else data + chunk


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(*segments: bytes, size: tuple[int, int] = (64, 160)) -> bytes:
    data = encoded("JPEG", size=size)
    return data[:2] + b"".join(segments) + data[2:]


def extended_xmp(packet: bytes, properties: dict[str, str] | None = None, part: int = 60_000) -> list[bytes]:
    """APP1 segments of a main packet that names an extended one, and of that one, last part first."""
    guid = hashlib.md5(packet).hexdigest().upper()
    main = xmp_packet({"xmpNote:HasExtendedXMP": guid, **(properties or {})})
    parts = [
        jpeg_segment(
            0xE1,
            b"http://ns.adobe.com/xmp/extension/\0"
            + guid.encode()
            + struct.pack(">II", len(packet), at)
            + packet[at : at + part],
        )
        for at in range(0, len(packet), part)
    ]
    return [jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + main), *reversed(parts)]


def gif_with(*, comment: str | None = None, xmp: bytes | None = None) -> bytes:
    """A GIF with a comment by Pillow, and XMP as XMP Specification Part 3, 1.1.2 has it."""
    stream = io.BytesIO()
    pixels("L", (16, 16)).save(stream, "GIF", **({"comment": comment} if comment else {}))
    data = stream.getvalue()
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    trailer = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    block = b"\x21\xff\x0bXMP DataXMP" + xmp + trailer if xmp else b""
    return b"GIF89a" + data[6:at] + block + data[at:]


def iptc_segment(sets: dict[int, bytes]) -> bytes:
    rows = b"".join(b"\x1c\x02" + bytes((n,)) + struct.pack(">H", len(v)) + v for n, v in sets.items())
    padded = rows + bytes(len(rows) % 2)
    return jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(rows)) + padded)


def samsung_trailer(name: str, value: str) -> bytes:
    block = struct.pack("<HHI", 0, 0x0BA1, len(name)) + name.encode() + value.encode()
    directory = b"SEFH" + struct.pack("<II", 106, 1) + struct.pack("<HHII", 0, 0x0BA1, len(block), len(block))
    return block + directory + struct.pack("<I", len(directory)) + b"SEFT"


def stealth_png(
    text: str, magic: str = "stealth_pngcomp", size: tuple[int, int] = (96, 160), opaque: bool = False
) -> bytes:
    """A PNG with text in the lowest bits, by the web UI extension's own recipe: bit by bit, column by column."""
    import gzip

    body = gzip.compress(text.encode()) if magic.endswith("comp") else text.encode()
    bits = "".join(f"{byte:08b}" for byte in magic.encode()) + f"{8 * len(body):032b}"
    bits += "".join(f"{byte:08b}" for byte in body)
    picture = pixels("RGB" if "rgb" in magic and not opaque else "RGBA", size).copy()
    access, at = picture.load(), 0
    for x in range(picture.width):
        for y in range(picture.height):
            pixel = list(access[x, y])
            for channel in (0, 1, 2) if "rgb" in magic else (3,):
                if at < len(bits):
                    pixel[channel] = pixel[channel] & ~1 | int(bits[at])
                    at += 1
            access[x, y] = tuple(pixel)
    assert at == len(bits), "the picture is too small for the text"
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def novelai_text() -> str:
    """What NovelAI hides in the alpha channel."""
    comment = {"prompt": "1girl, umbrella", "uc": "lowres", "seed": 4242, "sampler": "k_euler", "steps": 28}
    return json.dumps(
        {
            "Title": "AI generated image",
            "Description": "1girl, umbrella",
            "Software": "NovelAI",
            "Source": "NovelAI Diffusion V3 8017EAE2",
            "Comment": json.dumps(comment),
        }
    )
