"""Generators: the registry, memory, mixtures, failures, edits, round trips, a hosted one."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runner import Ran, run_mai
from pair_material import make_authentic
from PIL import Image as Pil

from mai.errors import ConfigError, UnknownNameError, UsageError, WeightsError
from mai.pairs import match, registry
from mai.pairs.generate import Generator, Made, Request, Runtime, open_generator
from mai.pairs.registry import Entry
from mai.pairs.settings import Settings, stored_mix
from mai.pairs.start import begin_generating

GREY = np.full((64, 64, 3), 99, np.uint8)


def request(name: str = "a", seed: int = 1, width: int = 64, height: int = 64, **more: Any) -> Request:
    rng = np.random.default_rng(3)
    authentic = np.asarray(Pil.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((width, height)))
    return Request(name, "a red house by the sea", seed, width, height, authentic, **more)


@pytest.mark.parametrize("name", sorted(registry.shipped()))
def test_every_shipped_entry_is_whole(name: str) -> None:
    entry = registry.shipped()[name]
    assert entry.licence
    assert entry.kind in {"tiny", "small64"} or entry.id
    if entry.kind == "diffusers":
        assert entry.steps and entry.network_b and entry.text_b and entry.sizes
        for width, height in entry.buckets:
            assert width % entry.multiple == height % entry.multiple == 0
        assert registry.plan_for(entry, 400.0).name == "full"
    assert registry.from_dict(registry.toml_of(entry)) == entry


@pytest.mark.parametrize("name", [n for n, e in registry.shipped().items() if e.kind == "diffusers"])
def test_diffusers_takes_the_name_of_the_guidance_argument(name: str) -> None:
    """The pipelines that diffusers would choose know the argument that the entry names."""
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING as KNOWN

    from mai.pairs.diffusion import known_arguments

    keys = {
        "sd3.5-large": "stable-diffusion-3", "sd3.5-large-turbo": "stable-diffusion-3",
        "sd3.5-medium": "stable-diffusion-3", "sdxl": "stable-diffusion-xl", "sd1.5": "stable-diffusion",
        "sd2.1": "stable-diffusion", "flux.1-dev": "flux", "flux.1-schnell": "flux", "flux.2-dev": "flux2",
        "flux.2-klein-4b": "flux2-klein", "pixart-sigma": "pixart-sigma", "sana-1.6b": "sana",
        "qwen-image": "qwenimage", "z-image-turbo": "z-image", "lumina2": "lumina2", "auraflow": "auraflow",
        "cogview4": "cogview4", "kandinsky3": "kandinsky3", "chroma1-hd": "chroma", "hunyuan-dit": "hunyuan",
    }  # fmt: skip
    entry = registry.shipped()[name]
    call = KNOWN[keys[name]].__call__
    wanted = {
        entry.guidance_argument: 1,
        "num_inference_steps": 1,
        "width": 1,
        "height": 1,
        "generator": 1,
        "no_such": 1,
    }
    assert known_arguments(call, wanted).keys() == wanted.keys() - {"no_such"}
    assert known_arguments(call, entry.arguments) == entry.arguments


def test_memory_picks_how_a_pipeline_is_loaded() -> None:
    large = registry.find("sd3.5-large")
    picks = {gb: registry.plan_for(large, gb).name for gb in (80, 24, 12, 8, 4)}
    assert picks == {80: "full", 24: "offload", 12: "nf4", 8: "nf4-offload", 4: "sequential"}
    assert registry.memory("12GB") == registry.memory("12 gb") == registry.memory("12") == 12
    for wrong in ("much", "-3GB", "0"):
        with pytest.raises(UsageError, match="12GB"):
            registry.memory(wrong)
    with pytest.raises(UsageError, match="takes at least"):
        registry.plan_for(large, 1.0)
    assert registry.plan_for(large, 80, "nf4").name == "nf4"
    with pytest.raises(UnknownNameError, match="nf4"):
        registry.plan_for(large, None, "nf5")


def test_a_user_adds_a_generator_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('id = "me/mine"\nsteps = 7\nguidance = 2.5\nsizes = ["512x512"]\n')
    entry = registry.find(str(tmp_path / "mine.toml"))
    assert (entry.name, entry.steps, entry.buckets) == ("mine", 7, ((512, 512),))
    (tmp_path / "wrong.toml").write_text('id = "me/mine"\nstep = 7\n')
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        registry.find(str(tmp_path / "wrong.toml"))
    (tmp_path / "size.toml").write_text('id = "me/mine"\nsizes = ["512"]\n')
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        registry.find(str(tmp_path / "size.toml"))
    with pytest.raises(UnknownNameError, match=r"sd3\.5-large"):
        registry.find("sd3.5-larg")


def test_a_mixture_follows_its_weights_and_the_row_alone() -> None:
    mix = registry.mix(["sdxl=3,flux.1-schnell", "tiny=1"], ["tiny"])
    names = [mix.of(f"row {i}").name for i in range(3000)]
    shares = [names.count(name) / 3000 for name in ("sdxl", "flux.1-schnell", "tiny")]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.03)
    assert names == [
        registry.mix(["sdxl=3,flux.1-schnell=1,tiny"], ["tiny"]).of(f"row {i}").name for i in range(3000)
    ]
    for wrong, words in (
        (["sdxl=0"], "above 0"),
        (["sdxl,sdxl"], "twice"),
        (["sdxl=a"], "above 0"),
        ([], "No generator"),
    ):
        with pytest.raises(UsageError, match=words):
            registry.mix(wrong)
    with pytest.raises(UsageError, match="All generators are held out"):
        registry.mix(["tiny"], ["tiny"])


def test_seeds_come_from_the_row_alone() -> None:
    seeds = [registry.seed_of(f"{i:016x}", 0) for i in range(2000)]
    assert len(set(seeds)) == 2000
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert registry.seed_of("ab", 0) == registry.seed_of("ab", 0) != registry.seed_of("ab", 1)


class Failing:
    """As many pictures as fit into its memory; some prompts it cannot take."""

    revision = "1"

    def __init__(self, fits: int, bad: str = "") -> None:
        self.fits, self.bad = fits, bad
        self.sizes: list[int] = []

    def make(self, requests: Sequence[Request]) -> list[Made]:
        self.sizes.append(len(requests))
        if len(requests) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(one.id == self.bad for one in requests):
            raise RuntimeError("the prompt is too long\nand more")
        return [Made(GREY + one.seed) for one in requests]


def test_memory_that_runs_out_halves_the_batch_and_goes_on() -> None:
    backend = Failing(fits=2)
    generator = Generator(Entry("x"), backend, batch=8)
    made = generator.make([request(str(i), i) for i in range(9)])
    assert [int(one.pixels[0, 0, 0]) for one in made if one.pixels is not None] == [99 + i for i in range(9)]
    assert backend.sizes == [8, 4, 2, 2, 2, 2, 1]
    assert (generator.batch, generator.n_halved) == (2, 2)


def test_one_picture_that_does_not_fit_is_a_status() -> None:
    made = Generator(Entry("x"), Failing(fits=0), batch=4).make([request(str(i)) for i in range(3)])
    assert [one.status for one in made] == ["generator_failed"] * 3
    assert "not enough memory" in str(made[0].message)


def test_a_failure_of_one_costs_no_other() -> None:
    made = Generator(Entry("x"), Failing(fits=9, bad="1"), batch=4).make([request(str(i)) for i in range(4)])
    assert [one.status for one in made] == ["ok", "generator_failed", "ok", "ok"]
    assert made[1].message == "RuntimeError: the prompt is too long"


def test_arguments_that_a_pipeline_lacks_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    from mai.pairs.diffusion import Diffusion
    from mai.pairs.registry import PLANS

    entry = registry.find("tiny")
    plain = Diffusion(entry, "none", 0.5, PLANS[0], "cpu")
    object.__setattr__(entry, "arguments", {"no_such_argument": 1})
    try:
        made = plain.make([request(seed=4), request(seed=5)])
    finally:
        object.__setattr__(entry, "arguments", {})
    alone = plain.make([request(seed=5)])
    assert made[1].pixels is not None and alone[0].pixels is not None
    difference = made[1].pixels.astype(int) - alone[0].pixels.astype(int)
    assert np.abs(difference).max() <= 1, "each picture has its own noise, whatever the batch"
    assert made[0].pixels is not None
    assert np.abs(made[0].pixels.astype(int) - made[1].pixels.astype(int)).max() > 10


@pytest.mark.parametrize("edit", ["image", "region"])
def test_edits_start_from_the_authentic_image(edit: Any) -> None:
    generator = open_generator(registry.find("tiny"), edit, 0.5, Runtime(device="cpu"))
    mask = match.region(64, 64, 5) if edit == "region" else None
    made = generator.make([request(mask=mask)])[0]
    assert made.status == "ok", made.message
    assert made.pixels is not None and made.pixels.shape == (64, 64, 3)
    assert generator.strength == 0.5


def test_a_region_lies_inside_and_is_of_its_size() -> None:
    for seed in range(50):
        mask = match.region(96, 64, seed)
        assert mask.shape == (64, 96)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.03 < (mask > 0).mean() < 0.5


def test_round_trips_of_the_five_tiny_autoencoders_are_the_picture_again(shared: Path) -> None:
    from corpus_photo import photo

    pixels = photo(shared)
    for name in ("taesd", "taesdxl", "taesd3", "taef1", "taef2"):
        generator = open_generator(
            registry.find(f"vae:{name}"), "none", 0, Runtime("cpu", weights=shared / "taesd")
        )
        made = generator.make([Request("a", "", 1, 192, 192, pixels)])[0]
        assert made.pixels is not None, made.message
        error = np.mean((pixels.astype(float) - made.pixels) ** 2)
        assert 20 < 10 * np.log10(255**2 / error) < 50, name
        assert "sha256" in generator.backend.revision


def test_missing_weights_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="--weights DIR"):
        open_generator(registry.find("vae:taesd"), "none", 0, Runtime("cpu", weights=tmp_path))
    with pytest.raises(UsageError, match="cannot start from an image"):
        open_generator(registry.find("vae:taesd"), "image", 0.5, Runtime("cpu"))


def test_the_small_sampler_that_ships_follows_its_prompt_and_its_seed() -> None:
    generator = open_generator(registry.find("small64"), "none", 0, Runtime("cpu"))

    def means(prompt: str) -> list[float]:
        made = generator.make([Request("a", prompt, seed, 64, 64, GREY) for seed in (1, 2, 3)])
        assert all(one.pixels is not None and one.pixels.shape == (64, 64, 3) for one in made)
        return [float(one.pixels.mean()) for one in made if one.pixels is not None]

    dark, bright = means("a dark photo of a street at night"), means("a bright photo of snow")
    assert max(dark) + 30 < min(bright)
    assert means("a dark photo of a street at night") == dark
    assert len(set(dark)) == 3, "another seed, another picture"
    blue, orange = (
        generator.make([Request("a", f"a photo, {colour}", 4, 64, 64, GREY)])[0].pixels
        for colour in ("blue", "orange")
    )
    assert blue is not None and orange is not None
    assert (blue[..., 2].mean() - blue[..., 0].mean()) > (orange[..., 2].mean() - orange[..., 0].mean()) + 10


class Api(BaseHTTPRequestHandler):
    """An images endpoint: what it answers is asked for in the prompt."""

    seen: list[dict[str, Any]]
    fails: int
    png: bytes

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).seen.append({**body, "key": self.headers["Authorization"], "at": time.monotonic()})
        if type(self).fails:
            type(self).fails -= 1
            self._answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"})
        elif "forbidden" in body["prompt"]:
            self._answer(400, {"error": {"message": "Your request was rejected by the safety system."}})
        elif "address" in body["prompt"]:
            host, port = self.server.server_address[:2]
            self._answer(200, {"data": [{"url": f"http://{host}:{port}/x.png"}]})
        elif "nonsense" in body["prompt"]:
            self._answer(200, {"data": [{"b64_json": "AAAA"}]})
        elif "elsewhere" in body["prompt"]:
            self._answer(307, {}, {"Location": "http://127.0.0.1:1/"})
        else:
            self._answer(200, {"data": [{"b64_json": base64.b64encode(self.png).decode()}]})

    def do_GET(self) -> None:
        assert self.headers["Authorization"] is None, "the key goes nowhere else"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.png)

    def _answer(self, code: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Entry, type[Api]]]:
    class Own(Api):
        seen: list[dict[str, Any]] = []  # noqa: RUF012
        fails = 0

    stream = io.BytesIO()
    Pil.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)).save(stream, "PNG")
    Own.png = stream.getvalue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MAI_TEST_KEY", "secret")
    monkeypatch.setattr("mai.pairs.http_images.PAUSE_S", 0.01)
    url = f"http://127.0.0.1:{server.server_address[1]}/v1/images/generations"
    yield (
        Entry(
            "hosted", "http", "model-1", url=url, key_variable="MAI_TEST_KEY", price=0.25, sizes=("64x64",)
        ),
        Own,
    )
    server.shutdown()
    server.server_close()


def named(entry: Entry) -> Runtime:
    """As of a command that names the generator."""
    return Runtime(hosted=((entry.url, entry.key_variable),))


def hosted(entry: Entry, prompt: str, monkeypatch: pytest.MonkeyPatch | None = None) -> tuple[Made, Any]:
    generator = open_generator(entry, "none", 0, named(entry))
    made = generator.make([Request("a", prompt, 1, 64, 64, GREY)])[0]
    return made, generator.backend


def test_a_hosted_generator_makes_a_picture_and_counts_its_price(api: tuple[Entry, type[Api]]) -> None:
    entry, server = api
    for prompt in ("a dog", "by address"):
        made, backend = hosted(entry, prompt)
        assert made.status == "ok", made.message
        assert made.pixels is not None and made.pixels.shape == (96, 128, 3)
        assert made.cost == backend.cost == 0.25
    assert server.seen[0]["key"] == "Bearer secret"
    assert server.seen[0]["model"] == "model-1"
    assert server.seen[0]["size"] == "64x64"
    assert match.fit_synthetic(made.pixels, match.Target(64, 64, (0, 0, 64, 64))).shape == (64, 64, 3)


def test_a_hosted_generator_is_asked_again_and_refusals_are_a_status(
    api: tuple[Entry, type[Api]], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, server = api
    server.fails = 2
    made, backend = hosted(entry, "a dog")
    assert (made.status, backend.n_requests, backend.n_retries) == ("ok", 3, 2)
    refused, backend = hosted(entry, "forbidden")
    assert (refused.status, refused.cost, backend.n_requests) == ("refused", 0.0, 1)
    assert "safety system" in str(refused.message)
    broken, _ = hosted(entry, "nonsense")
    assert broken.status == "generator_failed"
    led_away, _ = hosted(entry, "elsewhere")
    assert (led_away.status, str(led_away.message)[:8]) == ("generator_failed", "HTTP 307")
    server.fails = 99
    failed, _ = hosted(entry, "a dog")
    assert failed.status == "generator_failed"
    assert "HTTP 429: slow down" in str(failed.message)
    monkeypatch.delenv("MAI_TEST_KEY")
    with pytest.raises(UsageError, match="MAI_TEST_KEY"):
        hosted(entry, "a dog")


def test_a_hosted_generator_holds_its_rate(api: tuple[Entry, type[Api]]) -> None:
    from dataclasses import replace

    entry, server = api
    generator = open_generator(replace(entry, per_minute=600.0), "none", 0, named(entry))
    generator.make([Request(str(i), "a dog", 1, 64, 64, GREY) for i in range(4)])
    times = [one["at"] for one in server.seen]
    assert times[-1] - times[0] > 0.2, "three pauses of a tenth of a second, less what the network took"


def test_settings_of_a_folder_send_no_key_anywhere(
    api: tuple[Entry, type[Api]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder as somebody else may hand it over: its settings name a variable of ours and an address of theirs."""
    entry, server = api
    monkeypatch.setenv("OPENAI_API_KEY", "ours")
    theirs = tmp_path / "theirs.toml"
    told = {"kind": "http", "id": "m", "url": entry.url, "key_variable": "OPENAI_API_KEY"}
    theirs.write_text("".join(f'{key} = "{value}"\n' for key, value in told.items()) + 'sizes = ["64x64"]')
    folder = tmp_path / "ds"
    photos = make_authentic(tmp_path / "photos", 2)
    first = ("--authentic", photos, "--captioner", "words", "--output", folder)

    def pairs(*words: str | Path) -> Ran:
        return run_mai(monkeypatch, capsys, "pairs", *words)

    assert pairs("caption", *first, "--quiet").code == 0
    begin_generating(folder, Settings(generators=stored_mix(registry.mix([str(theirs)]))))
    calls: list[tuple[str | Path, ...]] = [("generate", "--output", folder), ("make", *first)]
    for call in calls:
        done = pairs(*call, "--quiet")
        assert done.code == 2, done.err
        assert f"would send captions and the key in OPENAI_API_KEY to {entry.url}" in done.err
        assert "--generator theirs" in done.err
    assert server.seen == []
    done = pairs("generate", "--output", folder, "--generator", theirs, "--quiet")
    assert done.code == 0, done.err
    assert {one["key"] for one in server.seen} == {"Bearer ours"}
    n = len(server.seen)
    done = pairs("verify", folder, "--again", "2")
    assert (done.code, len(server.seen)) == (0, n), "a hosted picture is not made again"
    assert "0 of 0 came out the same" in done.out


def test_the_host_behind_a_long_name_is_told() -> None:
    entry = Entry("x", "http", url=f"https://api.openai.com:{'v' * 90}@theirs.example/v1/images/generations")
    with pytest.raises(UsageError, match=r"the host theirs\.example "):
        open_generator(entry, "none", 0, Runtime())


def test_shapes_are_matched_by_the_nearest_bucket() -> None:
    entry = registry.find("sd3.5-large")
    assert match.nearest(4000, 3000, entry.buckets) == (1152, 896)
    wide = match.target(4000, 3000, entry)
    assert (wide.width, wide.height) == (1152, 896)
    left, top, right, bottom = wide.crop
    assert (right - left) / (bottom - top) == pytest.approx(1152 / 896, rel=0.002)
    assert match.target(600, 600, entry).upscale > match.MAX_UPSCALE
    free = match.target(333, 250, registry.find("vae:taesd"))
    assert (free.width, free.height, free.upscale) == (320, 240, 1.0)
    pixels = np.random.default_rng(1).integers(0, 256, (250, 333, 3), np.uint8)
    left, top, right, bottom = free.crop
    assert np.array_equal(match.fit(pixels, free), pixels[top:bottom, left:right]), "no pixel is touched"


@pytest.mark.parametrize("table", ["loading", "arguments"])
@pytest.mark.parametrize("name", registry.CODE)
def test_an_entry_cannot_run_code(table: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f'id = "a/b"\n[{table}]\n{name} = "a/b"\n')
    with pytest.raises(ConfigError, match=f"{name}.*runs code"):
        registry.find(str(file))


@pytest.mark.parametrize(
    "url",
    ["http://localhost.example/x", "http://127.0.0.1.example/x", "http://localhost@example/x", "http://[x"],
)
def test_a_key_goes_to_no_host_that_only_looks_like_this_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mai.pairs.http_images import HttpImages

    monkeypatch.setenv("SOME_KEY", "secret")
    with pytest.raises(UsageError, match="begin with https"):
        HttpImages(Entry(kind="http", id="m", url=url, key_variable="SOME_KEY"))
