"""Augmentation knows no label; the aligned chain leaves nothing of a file's format, size or shape."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from labelled_pictures import draw as draw_picture
from PIL import Image as Pil

pytest.importorskip("cv2", reason="augmentation needs the extra 'train'")
torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

from mai.data.augment import ALIGNED_QUALITY, Augmentation, aligned, augment, cutmix  # noqa: E402
from mai.data.labelled import Row  # noqa: E402
from mai.data.store import Store, View  # noqa: E402
from mai.training.batches import AugmentedViews, batches  # noqa: E402
from mai.training.recipe import DataPlan  # noqa: E402
from mai.training.sampler import BalancedSampler, Draw  # noqa: E402

PICTURE = draw_picture(1, synthetic=False)
STRONG = Augmentation(native=0.5, codec_passes=3, rescale=1, blur=1, noise=1, light=1, mask=1)
NOTHING = Augmentation(
    scale_low=1, native=0, codec_passes=0, webp=0, rescale=0, blur=0, noise=0, light=0, mask=0
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("how", [Augmentation(), STRONG, NOTHING])
@pytest.mark.parametrize("shape", [(256, 341), (341, 256), (201, 200), (20, 33), (17, 900)])
def test_every_shape_becomes_a_square_and_is_left_alone(how: Augmentation, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    before = pixels.copy()
    pixels.setflags(write=False)  # as the store's pages are
    for seed in range(6):
        view = augment(pixels, np.random.default_rng(seed), 200, how)
        assert (view.shape, view.dtype, view.flags.c_contiguous) == ((200, 200, 3), np.uint8, True)
    assert np.array_equal(pixels, before)


def test_the_same_for_the_same_seed_only() -> None:
    views = [augment(PICTURE, np.random.default_rng(seed), 96, STRONG) for seed in (7, 7, 8)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


@pytest.mark.parametrize(
    "name", [f.name for f in fields(Augmentation) if f.name not in {"quality_low", "rescale", "cutmix"}]
)
def test_every_key_does_something(name: str) -> None:
    value = {"scale_low": 0.3, "codec_passes": 3}.get(name, 1.0)
    base = replace(NOTHING, codec_passes=2) if name == "webp" else NOTHING
    changed = replace(base, **{name: value})
    pairs = [
        (augment(PICTURE, np.random.default_rng(s), 96, base), augment(PICTURE, np.random.default_rng(s), 96, changed))
        for s in range(5)
    ]  # fmt: skip
    assert any(not np.array_equal(one, other) for one, other in pairs)


def test_low_quality_is_seen() -> None:
    fine, coarse = (
        np.mean([
            np.abs(augment(PICTURE, np.random.default_rng(s), 96, replace(NOTHING, codec_passes=3, quality_low=q))
                   .astype(int) - augment(PICTURE, np.random.default_rng(s), 96, NOTHING)).mean()
            for s in range(12)
        ])
        for q in (97, 5)
    )  # fmt: skip
    assert coarse > fine


def two_pictures() -> Store:
    pixels = np.concatenate([PICTURE.ravel(), draw_picture(1, synthetic=True).ravel()])
    rows = (Row("a.jpg", 0, "train"), Row("b.png", 1, "train"))
    height, width = PICTURE.shape[:2]
    other = draw_picture(1, synthetic=True).shape
    views = (View(0, "whole", 0, height, width), View(1, "whole", PICTURE.size, other[0], other[1]))
    return Store(rows, views, pixels, {})


def test_the_label_changes_no_pixel() -> None:
    views = AugmentedViews(two_pictures(), DataPlan(96), STRONG)
    seeds = [(0, 0, 0, i) for i in range(8)]
    made = [views[[Draw(0, label, seed) for seed in seeds]] for label in (0, 1)]
    assert torch.equal(made[0][0], made[1][0])
    assert made[0][1].tolist() == [0.0] * 8
    assert made[1][1].tolist() == [1.0] * 8


def test_batches_are_the_same_whoever_makes_them() -> None:
    store = two_pictures()
    plan = BalancedSampler(store, [0, 1], 0, 0.5, 0.5).epoch(0, 4, 4)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    here = list(batches(AugmentedViews(store, DataPlan(64), Augmentation()), plan, 0))
    there = list(batches(AugmentedViews(store, DataPlan(64), Augmentation()), plan, 2))
    assert len(here) == len(there) == 4
    for (views, labels), (others, other_labels) in zip(here, there, strict=True):
        assert torch.equal(views, others)
        assert torch.equal(labels, other_labels)
    # A resumed run starts one loader more: it must not move the generator that dropout draws from.
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batches_of_any_size_and_number_stay_as_they_came() -> None:
    """More batches than there are slots of shared memory, held; and some larger than the first, which do not fit."""
    store = two_pictures()
    plan = [[Draw(i % 2, i % 2, (number, i)) for i in range(1 + number % 3)] for number in range(20)]
    views = AugmentedViews(store, DataPlan(32), Augmentation())
    for held, draws in zip(list(batches(views, plan, 2)), plan, strict=True):
        assert torch.equal(held[0], views[draws][0])
        assert torch.equal(held[1], views[draws][1])


def test_cutmix_mixes_targets_by_area_and_keeps_the_rest() -> None:
    views = np.repeat(np.array([0, 255], np.uint8), 4)[:, None, None, None] * np.ones(
        (1, 40, 40, 3), np.uint8
    )
    labels = np.repeat(np.array([0, 1], np.float32), 4)
    cutmix(views, labels, np.random.default_rng(0), 1.0)
    # White is synthetic here, so the share of white is the target.
    assert labels == pytest.approx(views.mean((1, 2, 3)) / 255, abs=1e-6)
    assert len(set(labels.tolist())) > 3
    before = views.copy()
    cutmix(views, labels, np.random.default_rng(0), 0.0)
    assert np.array_equal(views, before)


def test_kinds_of_different_size_have_batches_of_their_own() -> None:
    store = two_kinds()
    plan = DataPlan(64, whole_px=96, whole_share=0.5)
    drawn = BalancedSampler(store, [0, 1, 2, 3], 0, 0.5, 0.5, kinds_apart=True).epoch(0, 16, 4)
    made = AugmentedViews(store, plan, Augmentation(cutmix=0.5))
    sides = set()
    for batch in drawn:
        kinds = {store.views[draw.view].kind for draw in batch}
        assert len(kinds) == 1
        views, labels = made[batch]
        assert views.shape[1] == (96 if kinds == {"whole"} else 64)
        assert bool(((labels >= 0) & (labels <= 1)).all())
        sides.add(views.shape[1])
    assert sides == {64, 96}
    again = made[drawn[0]]
    assert torch.equal(made[drawn[0]][0], again[0])
    assert torch.equal(made[drawn[0]][1], again[1])


def two_kinds() -> Store:
    pixels = np.concatenate([PICTURE.ravel(), draw_picture(1, synthetic=True).ravel()])
    names = (("a", 0, "crop"), ("a", 0, "whole"), ("b", 1, "crop"), ("b", 1, "whole"))
    rows = tuple(Row(f"{n}-{kind}.jpg", label, "train", image=n, view=kind) for n, label, kind in names)
    places = [(0, PICTURE.shape), (PICTURE.size, draw_picture(1, synthetic=True).shape)]
    views = tuple(
        View(i, kind, places[label][0], *places[label][1][:2]) for i, (_, label, kind) in enumerate(names)
    )
    return Store(rows, views, pixels, {})


def facts(data: bytes) -> tuple[str, tuple[int, int], tuple[tuple[int, ...], ...]]:
    with Pil.open(io.BytesIO(data)) as image:
        tables = getattr(image, "quantization", {}) or {}
        return str(image.format), image.size, tuple(tuple(tables[k]) for k in sorted(tables))


def test_the_aligned_chain_leaves_nothing_of_the_file(tmp_path: Path) -> None:
    # The same drawing as a large PNG, a small JPEG of poor quality and a long WebP: same shape in, same facts out.
    Pil.fromarray(draw_picture(2, True)).resize((640, 640)).save(tmp_path / "a.png")
    Pil.fromarray(draw_picture(2, True)).resize((640, 640)).save(tmp_path / "b.jpg", quality=30)
    Pil.fromarray(draw_picture(2, True)).resize((640, 640)).save(tmp_path / "c.webp", quality=60)
    formats = set()
    for seed in range(24):
        told = set()
        for path in sorted(tmp_path.iterdir()):
            with Pil.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            view, data = aligned(pixels, np.random.default_rng(seed), 160)
            assert view.shape == (160, 160, 3)
            with Pil.open(io.BytesIO(data)) as image:  # the network sees what the bytes hold
                assert np.abs(np.asarray(image.convert("RGB")).astype(int) - view).mean() < 2
            told.add(facts(data))
        assert len(told) == 1
        formats.add(told.pop()[0])
    assert formats == {"JPEG", "WEBP"}


@pytest.mark.parametrize("shape", [(700, 700), (300, 900), (190, 120), (40, 40)])
def test_the_aligned_chain_gives_every_shape_the_same_facts(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    n_webp = 0
    for seed in range(60):
        _, data = aligned(pixels, np.random.default_rng(seed), 64)
        form, size, _ = facts(data)
        assert size == (64, 64)
        n_webp += form == "WEBP"
    assert 5 <= n_webp <= 26  # a quarter of 60: sd 3.4
    assert ALIGNED_QUALITY[0] < ALIGNED_QUALITY[1]
