"""Make the pictures of this folder: photographs that MAI may ship, and synthetic pictures made from them.

    pip install scikit-image torch safetensors
    python examples/make.py --taesd FOLDER          # FOLDER: safetensors files of TAESD, see the README here

The photographs are those of scikit-image (version 0.26) that are in the public domain or CC0. The synthetic
ones come out of the decoder of a latent diffusion model, the part of such a generator that leaves its traces
in every pixel; README.md says of each picture what it is. Run twice, the script writes the same pictures (the
same bytes with the same versions of torch and Pillow). It never writes expected.csv: what is expected of a
detector is decided by a person.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).parent
PHOTOGRAPHS = {"astronaut": 90, "brick": 80, "camera": 90, "chelsea": 90, "coffee": 90, "retina": 85}
"""Name in skimage.data -> JPEG quality. Larger pictures get less so that a file stays under 200 KB."""

DECLARED = (
    "a cat made of coffee, studio light\n"
    "Negative prompt: text\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234, Size: 384x256, Model: example"
)
"""Text in the form that the A1111 web UI writes into the PNG text chunk `parameters`. No A1111 ran."""


def network(path: Path) -> torch.nn.Sequential:
    """One half of a TAESD: reads the weights and builds the network that they are for.

    Source: the repository madebyollin/taesd, taesd.py (MIT). Index of a layer = number in its key. Works for
    taesd, taesdxl, taesd3 and taef1; taef2 has a block more.
    """
    import torch
    from safetensors.torch import load_file
    from torch import nn

    class Block(nn.Module):
        """Three 3x3 convolutions and the way past them."""

        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = [nn.Conv2d(64, 64, 3, padding=1)]
            for _ in range(2):
                layers += [nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)]
            self.conv = nn.Sequential(*layers)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """float32 (B, 64, H, W) -> the same."""
            return torch.relu(self.conv(x) + x)

    class Clamp(nn.Module):
        """Keeps latents within -3..3."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Any shape -> the same."""
            return torch.tanh(x / 3) * 3

    def conv(n_in: int, n_out: int, **options: Any) -> nn.Conv2d:
        return nn.Conv2d(n_in, n_out, 3, padding=1, **options)

    state = {key: value.float() for key, value in load_file(str(path)).items()}
    if "_encoder" in path.name:
        layers: list[nn.Module] = [conv(3, 64), Block()]
        for _ in range(3):
            layers += [conv(64, 64, stride=2, bias=False), Block(), Block(), Block()]
        layers.append(conv(64, len(state["14.bias"])))
    else:
        layers = [Clamp(), conv(state["1.weight"].shape[1], 64), nn.ReLU()]
        for _ in range(3):
            layers += [Block(), Block(), Block(), nn.Upsample(scale_factor=2), conv(64, 64, bias=False)]
        layers += [Block(), conv(64, 3)]
    made = nn.Sequential(*layers)
    made.load_state_dict(state)
    return made.eval()


class Autoencoder:
    """Encoder and decoder of one latent space, factor 8."""

    def __init__(self, folder: Path, name: str) -> None:
        self.encoder = network(folder / f"{name}_encoder.safetensors")
        self.decoder = network(folder / f"{name}_decoder.safetensors")

    def encode(self, picture: Image.Image) -> torch.Tensor:
        """RGB picture with sides that are multiples of 8 -> float32 latents (1, C, H/8, W/8)."""
        import torch

        x = torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1)[None]
        with torch.inference_mode():
            return self.encoder(x)  # type: ignore[no-any-return]

    def decode(self, latents: torch.Tensor) -> Image.Image:
        """Latents (1, C, h, w) -> RGB picture (8h, 8w)."""
        import torch

        with torch.inference_mode():
            x: NDArray[np.float32] = self.decoder(latents).clamp(0, 1)[0].permute(1, 2, 0).numpy()
        return Image.fromarray(np.round(x * 255).astype(np.uint8))


def trimmed(picture: Image.Image) -> Image.Image:
    """RGB, cut at the right and bottom to sides that are multiples of 8."""
    return picture.convert("RGB").crop((0, 0, picture.width // 8 * 8, picture.height // 8 * 8))


def blend(autoencoder: Autoencoder, first: Image.Image, second: Image.Image, share: float) -> Image.Image:
    """Decode a mixture of two pictures' latents; `share` (0..1) of it is the first's."""
    a = autoencoder.encode(first)
    b = autoencoder.encode(second.resize(first.size, Image.Resampling.LANCZOS))
    return autoencoder.decode(share * a + (1 - share) * b)


def variation(autoencoder: Autoencoder, picture: Image.Image, seed: int, n_levels: int = 6) -> Image.Image:
    """Sample another picture with the patches of this one, coarse to fine, in latent space.

    The sampler of Granot et al., Drop the GAN (arXiv 2103.15545, section 3), with latents in place of pixels:
    start from noise over the smallest picture; at each level replace every patch by its nearest of the
    source.

    Args:
        autoencoder: the latent space.
        picture: RGB, sides multiples of 8.
        seed: of the noise.
        n_levels: sizes from about a sixth of the sides up to the whole.
    """
    import torch
    from torch.nn.functional import fold, interpolate, unfold

    side = 5  # latents a patch side: 40 pixels at the finest level
    generator = torch.Generator().manual_seed(seed)
    sample: torch.Tensor | None = None
    for scale in np.geomspace(1 / 6, 1, n_levels):
        size = tuple(max(side + 1, round(x * scale / 8)) * 8 for x in picture.size)
        source = autoencoder.encode(picture.resize(size, Image.Resampling.LANCZOS))
        if sample is None:
            noise = torch.randn(source.shape, generator=generator)
            sample = source + 4 * source.std() * noise
        else:
            sample = interpolate(sample, size=source.shape[2:], mode="bilinear")
        keys = unfold(source, side)[0].T
        for _ in range(4):
            queries = unfold(sample, side)[0].T
            distance = torch.cdist(queries, keys)
            # Divided by each key's least distance: patches not used yet come first (section 3.2).
            nearest = (distance / (0.005 * distance.mean() + distance.min(0, keepdim=True).values)).argmin(1)
            patches = keys[nearest].T[None]
            area = tuple(source.shape[2:])
            count = fold(torch.ones_like(patches), area, side)
            sample = fold(patches, area, side) / count
    if sample is None:
        raise ValueError(f"n_levels must be at least 1, not {n_levels}.")
    return autoencoder.decode(sample)


def photographs(folder: Path) -> dict[str, Image.Image]:
    """Write the authentic pictures, return the pixels they were made of."""
    import skimage

    folder.mkdir(parents=True, exist_ok=True)
    data = Path(skimage.__file__).parent / "data"
    # The rocket comes as a JPEG: its bytes go over as they are.
    (folder / "rocket.jpg").write_bytes((data / "rocket.jpg").read_bytes())
    pictures = {"rocket": Image.open(data / "rocket.jpg").convert("RGB")}
    for name, quality in PHOTOGRAPHS.items():
        with Image.open(next(data.glob(f"{name}.*"))) as opened:
            picture = opened.convert("L" if opened.mode == "L" else "RGB")
        if max(picture.size) > 1024:
            picture.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
        picture.save(folder / f"{name}.jpg", quality=quality)
        pictures[name] = picture.convert("RGB")
    return pictures


def main() -> None:
    """Write authentic/ and synthetic/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--taesd", type=Path, required=True, help="folder of taesd*_{en,de}coder.safetensors")
    parser.add_argument("--output", type=Path, default=HERE, help="where authentic/ and synthetic/ go")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pictures = {
        name: trimmed(picture) for name, picture in photographs(arguments.output / "authentic").items()
    }
    folder = arguments.output / "synthetic"
    folder.mkdir(parents=True, exist_ok=True)
    spaces = {name: Autoencoder(arguments.taesd, name) for name in ("taesd", "taesdxl", "taesd3", "taef1")}

    trips = {"astronaut": "taesd", "chelsea": "taesdxl", "camera": "taesd3", "coffee": "taef1"}
    for name, space in trips.items():
        made = spaces[space].decode(spaces[space].encode(pictures[name]))
        made.save(folder / f"{name}-{space}.jpg", quality=90)
    variation(spaces["taesd"], pictures["rocket"], seed=4).save(folder / "rocket-variation.jpg", quality=90)
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", DECLARED)
    cat = pictures["chelsea"].resize((384, 256), Image.Resampling.LANCZOS)
    mixed = blend(spaces["taesdxl"], cat, pictures["coffee"], share=0.6)
    mixed.save(folder / "declared.png", pnginfo=text, optimize=True)


if __name__ == "__main__":
    main()
