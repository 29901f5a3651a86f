"""The table: what each generator writes, into which field, and what that declares.

A rule holds if one of its fields is there and its text is what the generator writes; a rule with `also` needs a
second field beside it. Captions and descriptions are matched whole or at their end, with a UUID or a signature
in them, never by a word that a person could have written about a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mai.provenance import programs, source_type, values
from mai.provenance.reading import Field, Reading
from mai.provenance.source_type import Declares
from mai.provenance.values import Predicate

Strength = Literal["strong", "medium"]
"""strong: nobody else writes this. medium: a plain name, or a marker that its maker never described."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        generator: its short name, as it stands in the evidence.
        title: its name for people.
        fields: `place:name` of the fields that may hold it.
        value: what the text must be.
        strength: see Strength.
        source: public page that shows the generator writing it.
        declares: `synthetic`, or `edited` for a photograph that AI changed.
        also: fields and text that must be there too.
    """

    generator: str
    title: str
    fields: tuple[str, ...]
    value: Predicate
    strength: Strength
    source: str
    declares: Declares = "synthetic"
    also: tuple[tuple[str, ...], Predicate] | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """A rule that holds.

    Attributes:
        generator: short name, None where only a source type speaks.
        title: words for people.
        declares: what the field says about the picture.
        strength: see Strength.
        field: `place:name` of the field.
    """

    generator: str | None
    title: str
    declares: Declares
    strength: Strength
    field: str


_COMMENTS = ("exif:UserComment", "xmp:exif:UserComment")
_PARAMETERS = ("png:parameters", "comment:parameters", "stealth:parameters")
PARAMETERS = (*_PARAMETERS, *_COMMENTS, "comment:GIF")
_JSON_PARAMETERS = ("png:parameters", *_COMMENTS)
_EASY = ("use_stable_diffusion_model", "Stable Diffusion model")
_CREDIT = ("xmp:photoshop:Credit", "iptc:Credit")
_SOURCE_TYPE = "xmp:Iptc4xmpExt:DigitalSourceType"
_SOFTWARE = (
    "exif:Software",
    "png:Software",
    "xmp:xmp:CreatorTool",
    "xmp:tiff:Software",
    "iptc:OriginatingProgram",
)
_COMFY_EXIF = ("exif:Make", "exif:Model", "exif:ImageDescription", "exif:DocumentName")
AI_FIELDS = tuple(
    f"xmp:Iptc4xmpExt:{name}"
    for name in ("AISystemUsed", "AISystemVersionUsed", "AIPromptInformation", "AIPromptWriterName")
)
IPTC_2025 = "https://www.iptc.org/std/photometadata/specification/IPTC-PhotoMetadata-2025.1.html"
_GITHUB = "https://github.com/"
_WEB_UI = "Stable Diffusion web UI (A1111, Forge, SD.Next)"
_A1111 = _GITHUB + "AUTOMATIC1111/stable-diffusion-webui/wiki/Features#png-info"
_COMFY = _GITHUB + "comfyanonymous/ComfyUI/blob/master/nodes.py"
_INVOKE = _GITHUB + "invoke-ai/InvokeAI"
_NOVELAI = _GITHUB + "NovelAI/novelai-image-metadata"

RULES: tuple[Rule, ...] = (
    Rule(
        "fooocus",
        "Fooocus",
        ("png:fooocus_scheme", "exif:MakerNote"),
        values.is_one_of("fooocus", "a1111"),
        "strong",
        _GITHUB + "lllyasviel/Fooocus/blob/main/modules/private_logger.py",
        also=(_JSON_PARAMETERS, values.is_parameters),
    ),
    Rule(
        "fooocus",
        "Fooocus (RuinedFooocus, Fooocus-MRE)",
        ("png:Comment", *_JSON_PARAMETERS),
        values.is_json_naming("software", r"(?i)\w{0,20}Fooocus\b.*"),
        "strong",
        _GITHUB + "MoonRide303/Fooocus-MRE",
    ),
    Rule(
        "swarmui",
        "SwarmUI",
        (*_PARAMETERS, *_COMMENTS),
        values.is_json_with("sui_image_params"),
        "strong",
        _GITHUB + "mcmonkeyprojects/SwarmUI/blob/master/docs/Image%20Metadata%20Format.md",
    ),
    Rule("a1111", _WEB_UI, _PARAMETERS, values.is_a1111, "strong", _A1111),
    Rule("a1111", _WEB_UI, (*_COMMENTS, "comment:GIF"), values.is_a1111_comment, "strong", _A1111),
    Rule("comfyui", "ComfyUI", ("png:prompt",), values.is_graph, "strong", _COMFY),
    Rule("comfyui", "ComfyUI", ("png:workflow",), values.is_workflow, "strong", _COMFY),
    Rule("comfyui", "ComfyUI", (*_COMFY_EXIF, *_COMMENTS), values.is_prefixed_comfyui, "strong", _COMFY),
    Rule("comfyui", "ComfyUI", _COMMENTS, values.is_comfyui, "strong", _COMFY),
    Rule(
        "draw-things",
        "Draw Things",
        _COMMENTS,
        values.is_draw_things,
        "strong",
        _GITHUB + "receyuki/stable-diffusion-prompt-reader/blob/master/sd_prompt_reader/format/drawthings.py",
    ),
    Rule(
        "easy-diffusion",
        "Easy Diffusion",
        tuple(f"png:{name}" for name in _EASY),
        values.anything,
        "strong",
        _GITHUB + "easydiffusion/easydiffusion/blob/main/ui/easydiffusion/utils/save_utils.py",
        also=(("png:prompt", "png:Prompt"), values.anything),
    ),
    Rule(
        "easy-diffusion",
        "Easy Diffusion",
        _COMMENTS,
        values.is_json_with(*_EASY),
        "strong",
        _GITHUB + "easydiffusion/easydiffusion/blob/main/ui/easydiffusion/utils/save_utils.py",
    ),
    Rule(
        "settings",
        "settings of a diffusion program",
        (*_JSON_PARAMETERS, "png:generation_data"),
        values.is_settings,
        "strong",
        _GITHUB + "filipstrand/mflux",
    ),
    Rule(
        "flux",
        "FLUX (Black Forest Labs' programs)",
        ("exif:Software",),
        values.fits(r"AI generated;\w+;flux[^\n]{0,60}"),
        "strong",
        _GITHUB + "black-forest-labs/flux/blob/main/src/flux/cli.py",
    ),
    Rule(
        "flux",
        "FLUX (Black Forest Labs' programs)",
        ("exif:Make",),
        values.fits(r"Black Forest Labs"),
        "medium",
        _GITHUB + "black-forest-labs/flux/blob/main/src/flux/cli.py",
    ),
    Rule(
        "invokeai",
        "InvokeAI",
        ("png:invokeai_metadata", "png:invokeai_workflow", "png:invokeai_graph"),
        values.is_json,
        "strong",
        _INVOKE,
    ),
    Rule(
        "invokeai",
        "InvokeAI",
        ("png:sd-metadata",),
        values.is_sd_metadata,
        "strong",
        _INVOKE,
    ),
    Rule(
        "invokeai",
        "InvokeAI",
        ("png:invokeai",),
        values.is_json_with("node", "session_id"),
        "strong",
        _INVOKE,
    ),
    Rule("invokeai", "InvokeAI", ("png:Dream",), values.is_dream, "strong", _INVOKE),
    Rule(
        "novelai",
        "NovelAI",
        ("png:Software", "exif:Software", "stealth:Software"),
        values.is_one_of("NovelAI"),
        "strong",
        _NOVELAI,
    ),
    Rule(
        "novelai",
        "NovelAI",
        ("png:Source", "stealth:Source"),
        values.fits(r"NovelAI Diffusion\b[^\n]{0,80}"),
        "strong",
        _NOVELAI,
    ),
    Rule(
        "novelai",
        "NovelAI",
        _COMMENTS,
        values.is_json_naming("Software", "NovelAI"),
        "strong",
        _NOVELAI,
    ),
    Rule(
        "stealth-pnginfo",
        "a generator of the Stable Diffusion family (bits hidden in the pixels)",
        ("stealth:text", "stealth:Comment"),
        values.anything,
        "strong",
        _GITHUB + "ashen-sensored/sd_webui_stealth_pnginfo",
    ),
    Rule(
        "midjourney",
        "Midjourney",
        ("png:Description", "exif:ImageDescription", "xmp:dc:description"),
        values.is_job,
        "strong",
        "https://docs.midjourney.com/hc/en-us/articles/33329261836941-Getting-Started-Guide",
    ),
    Rule(
        "google",
        "Google AI",
        _CREDIT,
        values.is_one_of("Made with Google AI"),
        "strong",
        "https://support.google.com/websearch/answer/16052223",
        also=((_SOURCE_TYPE,), lambda value: source_type.declares(value) == "synthetic"),
    ),
    Rule(
        "google",
        "Google AI",
        _CREDIT,
        values.is_one_of("Edited with Google AI", "Made with Google AI"),
        "strong",
        "https://support.google.com/photos/answer/15331159",
        declares="edited",
        also=((_SOURCE_TYPE,), lambda value: source_type.declares(value) == "edited"),
    ),
    Rule(
        "apple",
        "Apple Image Playground",
        _CREDIT,
        values.fits(r"(?:Made with |Created (?:with|in) )?Apple Image Playground"),
        "medium",
        "https://support.apple.com/guide/iphone/iph0063238b5/ios",
    ),
    Rule(
        "apple",
        "Apple Photos Clean Up",
        _CREDIT,
        values.is_one_of("Apple Photos Clean Up"),
        "strong",
        "https://malwr4n6.com/post/apple-intelligence-photo-forensics",
        declares="edited",
        also=((_SOURCE_TYPE,), lambda value: source_type.declares(value) == "edited"),
    ),
    Rule(
        "grok",
        "xAI Grok",
        ("exif:ImageDescription",),
        values.is_grok_signature,
        "strong",
        "https://x.ai/news/grok-image-generation-release",
        also=(("exif:Artist",), values.is_uuid),
    ),
    Rule(
        "ideogram",
        "Ideogram",
        ("exif:Make",),
        values.is_one_of("Ideogram AI"),
        "medium",
        "https://ideogram.ai/",
    ),
    Rule(
        "samsung",
        "Samsung Galaxy AI",
        ("samsung:PhotoEditor_Re_Edit_Data", "samsung:PEg_Info"),
        values.is_galaxy_edit,
        "medium",
        "https://www.samsung.com/global/galaxy/galaxy-ai/",
        declares="edited",
    ),
    Rule(
        "aigc-label",
        "China's label for AI content (GB 45438-2025)",
        ("xmp:TC260:AIGC", "png:AIGC"),
        values.is_aigc,
        "strong",
        "https://www.tc260.org.cn/",
    ),
    Rule(
        "aigc-label",
        "China's label for AI content (GB 45438-2025)",
        (*_COMMENTS, "exif:ImageDescription"),
        values.is_aigc_comment,
        "strong",
        "https://www.tc260.org.cn/",
    ),
    Rule(
        "aigc-label",
        "China's label for AI content (GB 45438-2025)",
        ("xmp:TC260:Label",),
        values.is_one_of("1", "2", "3"),
        "strong",
        "https://www.tc260.org.cn/",
    ),
)

_SOFTWARE_RULES = tuple(
    Rule(
        name,
        title,
        _SOFTWARE,
        values.fits(rf"(?i){programs.BEFORE}(?:{pattern}){programs.AFTER}"),
        "medium",
        "https://exiftool.org/TagNames/EXIF.html",
    )
    for name, title, pattern in programs.SOFTWARE
)


def judge(reading: Reading) -> list[Statement]:
    """All statements that a file's fields make, the strongest of each generator, in the order of the table."""
    found: dict[tuple[str | None, str], Statement] = {}
    for statement in (*_ruled(reading), *_source_types(reading), *_ai_fields(reading)):
        found.setdefault((statement.generator, statement.declares), statement)
    if any(name == "a1111" for name, _ in found) and any(name == "fooocus" for name, _ in found):
        del found["a1111", "synthetic"]  # the scheme says that Fooocus wrote A1111's text
    if any(name not in (None, "settings") for name, _ in found):
        found.pop(("settings", "synthetic"), None)  # the same settings, by the name of who wrote them
    if any(name not in (None, "stealth-pnginfo") for name, _ in found):
        found.pop(("stealth-pnginfo", "synthetic"), None)  # the same generator, known by name
    return list(found.values())


def _ruled(reading: Reading) -> list[Statement]:
    held = []
    there = {field.key for field in reading.fields}
    for rule in (*RULES, *_SOFTWARE_RULES):
        if there.isdisjoint(rule.fields):  # most rules, for most files
            continue
        field = _first(reading, rule.fields, rule.value)
        if field and (rule.also is None or _first(reading, *rule.also)):
            held.append(Statement(rule.generator, rule.title, rule.declares, rule.strength, field.key))
    return held


def _first(reading: Reading, keys: tuple[str, ...], value: Predicate) -> Field | None:
    return next((field for field in reading.of(*keys) if value(field.value)), None)


def _source_types(reading: Reading) -> list[Statement]:
    """What IPTC's source type says, of all that stand there."""
    said = []
    for field in reading.of(_SOURCE_TYPE):
        word, declares = source_type.term(field.value), source_type.declares(field.value)
        if word and declares:
            said.append(Statement(None, f"IPTC source type {word}", declares, "strong", field.key))
    return said


def _ai_fields(reading: Reading) -> list[Statement]:
    """IPTC 2025.1's AI fields: they name what generated the picture, or what changed a composite or capture."""
    field = _first(reading, AI_FIELDS, values.anything)
    if field is None:
        return []
    others = {source_type.declares(each.value) for each in reading.of(_SOURCE_TYPE)} - {None}
    declares: Declares = "edited" if others and "synthetic" not in others else "synthetic"
    return [Statement("iptc-ai", "IPTC 2025.1 AI fields", declares, "medium", field.key)]
