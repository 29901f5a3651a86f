"""XMP: the properties of the picture itself that a rule reads, from a packet of RDF/XML.

A property counts as a child, or attribute, of `rdf:RDF/rdf:Description`, told by its namespace, never its prefix.
The same name deeper inside (in the history of a document, in an ingredient) speaks of something else.

Source: XMP Specification Part 1 (Adobe, 2012; ISO 16684-1), 7. Parsed with defusedxml: no DTD, no entities.
"""

from __future__ import annotations

from typing import Any

from mai.provenance.reading import Reading

JPEG_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_HEADER = b"http://ns.adobe.com/xmp/extension/\0"

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_META = "{adobe:ns:meta/}"
_ARRAYS = {_RDF + "Alt", _RDF + "Bag", _RDF + "Seq"}
_IPTC_EXT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
_TC260 = tuple(
    f"{{{scheme}://www.tc260.org.cn/ns/AIGC/1.0{end}}}" for scheme in ("http", "https") for end in ("/", "")
)
_LABEL = {space + "AIGC" for space in _TC260}
"""China's label as a structure: its fields stand one level deeper."""
AIGC_NAMES = (
    "Label",
    "ContentProducer",
    "ProduceID",
    "ReservedCode1",
    "ContentPropagator",
    "PropagateID",
    "ReservedCode2",
)
"""Fields of China's label, GB 45438-2025, annex E."""

_NOTE = "{http://ns.adobe.com/xmp/note/}HasExtendedXMP"
PROPERTIES = {
    _IPTC_EXT + "DigitalSourceType": "Iptc4xmpExt:DigitalSourceType",
    _IPTC_EXT + "AISystemUsed": "Iptc4xmpExt:AISystemUsed",
    _IPTC_EXT + "AISystemVersionUsed": "Iptc4xmpExt:AISystemVersionUsed",
    _IPTC_EXT + "AIPromptInformation": "Iptc4xmpExt:AIPromptInformation",
    _IPTC_EXT + "AIPromptWriterName": "Iptc4xmpExt:AIPromptWriterName",
    "{http://ns.adobe.com/photoshop/1.0/}Credit": "photoshop:Credit",
    "{http://ns.adobe.com/xap/1.0/}CreatorTool": "xmp:CreatorTool",
    "{http://ns.adobe.com/tiff/1.0/}Software": "tiff:Software",
    "{http://purl.org/dc/elements/1.1/}description": "dc:description",
    "{http://ns.adobe.com/exif/1.0/}UserComment": "exif:UserComment",
    **{space + name: f"TC260:{name}" for space in _TC260 for name in ("AIGC", *AIGC_NAMES)},
    _NOTE: "xmpNote:HasExtendedXMP",
}
"""Name with namespace -> its usual short name."""

_MAX_ELEMENTS = 100_000
_MAX_DEPTH = 256
_MAX_VALUES = 256


class _TooManyError(Exception):
    """More or deeper elements than any honest packet has."""


class _Properties:
    """A target for the XML parser: keeps what stands in its place, forgets the rest.

    Attributes:
        found: short name and text of each value, in order.
        is_whole: the rdf:RDF element has been closed.
    """

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.is_whole = False
        self._stack: list[str] = []
        self._root = -1  # depth of rdf:RDF
        self._n_elements = 0
        self._text: list[str] | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element opens."""
        self._n_elements += 1
        depth = len(self._stack)
        if self._n_elements > _MAX_ELEMENTS or depth > _MAX_DEPTH:
            raise _TooManyError
        if tag == _RDF + "RDF" and self._root < 0 and self._may_hold_rdf():
            self._root = depth
        self._stack.append(tag)
        if self._is_at(1):
            for name, value in attributes.items():
                self._keep(PROPERTIES.get(name), value)
        elif self._is_at(2):
            self._text = []
            self._keep(PROPERTIES.get(tag), attributes.get(_RDF + "resource", ""))
            for name, value in attributes.items() if tag in _LABEL else ():
                self._keep(PROPERTIES.get(name), value)
        elif self._is_in_label():
            self._text = []
            for name, value in attributes.items():
                self._keep(PROPERTIES.get(name), value)
        elif self._is_at(4):
            self._text = []
            self._keep(PROPERTIES.get(self._stack[self._root + 2]), attributes.get(_RDF + "resource", ""))
        else:
            self._text = None

    def data(self, text: str) -> None:
        """Text of the innermost element."""
        if self._text is not None:
            self._text.append(text)

    def end(self, tag: str) -> None:
        """An element closes."""
        if self._text is not None and self._is_in_label():
            self._keep(PROPERTIES.get(tag), "".join(self._text))
        elif self._text is not None and (self._is_at(2) or self._is_at(4)):
            self._keep(PROPERTIES.get(self._stack[self._root + 2]), "".join(self._text))
        self._text = None
        self._stack.pop()
        if len(self._stack) == self._root:
            self.is_whole = True
            self._root = -2  # a second rdf:RDF is none of XMP's

    def close(self) -> None:
        """The document is over."""

    def _may_hold_rdf(self) -> bool:
        return not self._stack or (len(self._stack) == 1 and self._stack[0].startswith(_META))

    def _is_at(self, depth: int) -> bool:
        """Inside rdf:RDF at: 1 a description, 2 a property of it, 4 an item of an array that is the property."""
        if self._root < 0 or len(self._stack) != self._root + 1 + depth:
            return False
        below = self._stack[self._root + 1 :]
        if below[0] != _RDF + "Description":
            return False
        return depth < 4 or (below[2] in _ARRAYS and below[3] == _RDF + "li")

    def _is_in_label(self) -> bool:
        """Inside China's label where it is a structure, bare (`rdf:parseType`) or in a description of its own."""
        below = self._stack[self._root + 1 :] if self._root >= 0 else []
        if len(below) not in (3, 4) or below[0] != _RDF + "Description" or below[1] not in _LABEL:
            return False
        return len(below) == 3 or below[2] == _RDF + "Description"

    def _keep(self, name: str | None, value: str) -> None:
        value = value.strip()
        if name and value and len(self.found) < _MAX_VALUES:
            self.found.append((name, value))


def read(packet: bytes, reading: Reading) -> bytes | None:
    """Add the properties of a packet.

    Args:
        packet: UTF-8, or UTF-16 with a byte-order mark.

    Returns:
        The GUID of the extended packet that belongs to it, None if it names none.
    """
    packet = packet.strip(b"\0 \t\r\n")
    if not packet:
        return None
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    target: Any = _Properties()
    try:
        parser = DefusedXMLParser(target=target, forbid_dtd=True)
        parser.feed(packet)  # in one piece: older expat is quadratic on long tokens that come in small ones
        parser.close()
    except _TooManyError:
        reading.problem(
            f"The XMP has over {_MAX_ELEMENTS:,} elements, or {_MAX_DEPTH} deep; it was not read."
        )
        return None
    except DefusedXmlException:
        reading.problem("The XMP declares a document type or entities, which XMP forbids; it was not read.")
        return None
    except (SyntaxError, ValueError, LookupError, MemoryError, RecursionError):
        # SyntaxError: ElementTree's ParseError. Padding that is no XML may follow a whole packet.
        if not target.is_whole:
            reading.problem("The XMP is damaged (not well-formed); it was not read.")
            return None
    extension = None
    for name, value in target.found:
        if name == "xmpNote:HasExtendedXMP":
            extension = value.upper().encode("ascii", "replace")
        else:
            reading.add("xmp", name, value)
    return extension
