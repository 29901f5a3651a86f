"""Names by which programs of AI pictures call themselves in the fields for the program that made a file."""

from __future__ import annotations

BEFORE = r"(?:(?:Created|Made|Generated|Powered) (?:with|by|in|using) |(?:Adobe|Google|OpenAI|Microsoft) )?"
AFTER = (
    r"(?:[\s,;:/(_-]++(?>(?:v?[\d.]+[\w.+-]*|[\w.]*AI|beta|web(?: ?UI)?|app|XL|image|photo|art|creator|generator|"
    r"studio|canvas|model|labs?|inc\.?|\(?https?://\S*|\(?(?:www\.)?[\w-]+\.(?:ai|com|app|art))\)?(?=[\s,;:/(_-]|\Z)))*+"
)
"""What may stand before and after a program's name: words of makers, versions, addresses. `Leonardo da Vinci Scanner`
is another program. Nothing that was taken is given back (`++`, `(?>`): a separator may also stand inside a version or
an address, and trying each as both takes time that doubles with every one."""

_LEONARDO_SITE = r"[\s,;:/(_-]{1,3}(?:https?://)?(?:[\w-]{1,20}\.)?leonardo\.ai\b"
"""The service calls itself Leonardo.Ai; the bare name is a person's, and a camera or scanner program's as well. With
the service's address behind it, it counts."""

SOFTWARE: tuple[tuple[str, str, str], ...] = (
    ("dall-e", "DALL-E", r"DALL[\s·-]?E"),
    ("firefly", "Adobe Firefly", r"Adobe Firefly"),
    ("midjourney", "Midjourney", r"Midjourney"),
    ("leonardo", "Leonardo.Ai", rf"Leonardo(?:[. ]?AI|(?={_LEONARDO_SITE}))"),
    ("krea", "Krea", r"Krea(?:[. ]?AI)?"),
    ("recraft", "Recraft", r"Recraft(?:[. ]?AI)?"),
    ("dreamstudio", "DreamStudio", r"Dream ?Studio"),
    ("stability", "Stability AI", r"Stability[. ]AI"),
    ("stable-diffusion", "Stable Diffusion", r"Stable[ -]?Diffusion"),
    ("flux", "FLUX.1", r"FLUX\.[12]|Black Forest Labs"),
    ("comfyui", "ComfyUI", r"ComfyUI"),
    ("invokeai", "InvokeAI", r"InvokeAI"),
    ("fooocus", "Fooocus", r"Fooocus"),
    ("swarmui", "SwarmUI", r"(?:Stable)?SwarmUI"),
    ("draw-things", "Draw Things", r"Draw Things"),
    ("mochi-diffusion", "Mochi Diffusion", r"Mochi ?Diffusion"),
    ("easy-diffusion", "Easy Diffusion", r"Easy ?Diffusion"),
    ("sd-next", "SD.Next", r"SD\.Next"),
    ("imagen", "Google Imagen", r"Google Imagen"),
    ("gemini", "Google Gemini", r"Google Gemini(?: App)?"),
    ("chatgpt", "ChatGPT", r"ChatGPT|GPT[ -]Image"),
    ("playground", "Playground AI", r"Playground AI"),
    ("openart", "OpenArt", r"OpenArt"),
    ("tensor-art", "Tensor.Art", r"Tensor\.?Art"),
    ("kling", "Kling", r"Kling ?AI"),
    ("seedream", "Seedream", r"Seedream"),
    ("qwen-image", "Qwen-Image", r"Qwen[ -]Image"),
    ("reve", "Reve", r"Reve (?:Image|AI)|reve\.com"),
    ("getimg", "getimg.ai", r"getimg\.ai"),
    ("craiyon", "Craiyon", r"Craiyon"),
    ("diffusionbee", "DiffusionBee", r"DiffusionBee"),
    ("ideogram", "Ideogram", r"Ideogram(?:[. ]?AI)?"),
    ("a1111", "Stable Diffusion web UI", r"AUTOMATIC1111|Stable Diffusion web ?UI"),
    (
        "ai-horde",
        "AI Horde",
        r"(?:ArtBot|Stable UI) - Create images with Stable Diffusion,? u\w+ the AI Horde",
    ),
    ("fal", "fal.ai", r"fal[.-]ai"),
    ("nightcafe", "NightCafe", r"NightCafe"),
    ("bing", "Bing Image Creator", r"(?:Bing|Microsoft) Image Creator"),
    ("seaart", "SeaArt", r"SeaArt"),
    ("pixai", "PixAI", r"PixAI"),
    ("dreamina", "Dreamina", r"Dreamina|即梦(?:AI)?"),
)
"""Short name, name and pattern: whole words in the name of the program that made a file, with or without a
version. A program's name is no proof that it made the picture rather than touched it: medium."""
