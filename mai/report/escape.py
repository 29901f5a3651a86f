"""Text that others wrote (file names, prompts found in a picture) made harmless for terminals and JSON.

Escape sequences move the cursor or retitle a window, and direction marks make `gpj.exe` read as `exe.jpg`.
"""

from __future__ import annotations

import re

# C0, DEL, C1; soft hyphen, zero-width and direction marks; line and paragraph separators; surrogates; the
# byte-order mark, interlinear marks; tag characters. Sources: ECMA-48; Unicode TR36, section 3.2.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with each dangerous character written out (`\\x1b`, `\\u202e`); safe on a terminal."""
    return _UNSAFE.sub(lambda match: _written(match.group()), text)


def safe_json(text: str) -> str:
    """JSON text, as json.dumps(ensure_ascii=False) gives it, with the same characters as JSON escapes.

    The values that a parser reads stay the same, except that a lone surrogate, which no UTF-8 file can hold,
    is written out as the byte that it stood for.
    """
    return _UNSAFE.sub(lambda match: _json_escape(match.group()), text)


def _written(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that was not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(char: str) -> str:
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        return "\\" + _written(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
