"""The parts of LoRA training: profiles whose tensors all train, units, the size guard, the loss, the other models."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_pictures import draw
from PIL import Image as Pil

torch = pytest.importorskip("torch", reason="Moondream needs the extra 'vlm'")
pytest.importorskip("peft", reason="LoRA needs the extra 'vlm'")

from mai import config  # noqa: E402
from mai.data.augment import Augmentation  # noqa: E402
from mai.data.labelled import Row  # noqa: E402
from mai.data.sources import read_set  # noqa: E402
from mai.errors import ConfigError, DataError, TrainingError, UsageError  # noqa: E402
from mai.moondream import lora, scratch, tiny  # noqa: E402
from mai.moondream.crops import tiling_of  # noqa: E402
from mai.moondream.load import load  # noqa: E402
from mai.moondream.model import Moondream, MoondreamConfig, TextConfig  # noqa: E402
from mai.moondream.recipe import AdapterPlan, SamplePlan, TuneRecipe  # noqa: E402
from mai.moondream.samples import UnitSampler, UnitViews, sample  # noqa: E402
from mai.moondream.student import MoondreamStudent, on_device  # noqa: E402
from mai.moondream.vision import VisionConfig  # noqa: E402

RECIPES = Path(lora.__file__).parent / "recipes"
PLAN = SamplePlan(size_px=84)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("tiny"))


def student_of(folder: Path, profile: str, plan: SamplePlan = PLAN) -> MoondreamStudent:
    student = MoondreamStudent(load(folder), plan)
    if profile != "all-weights":
        adapter = AdapterPlan(profile=profile, r=4, alpha=8)  # type: ignore[arg-type]
        student.adapt(lora.attach(student.model, adapter, lora.PROFILES[profile]))
        if profile == "text-qk":
            assert lora.hold_values(student.model) == 2
    return student.train()


def views(n: int, side: int = 84) -> list[Any]:
    return [np.ascontiguousarray(draw(i, bool(i % 2))[:side, :side]) for i in range(n)]


@pytest.mark.parametrize("name", [path.stem for path in sorted(RECIPES.glob("*.toml"))])
def test_every_shipped_recipe_is_read(name: str) -> None:
    assert config.read(TuneRecipe, RECIPES / f"{name}.toml").architecture == "moondream"


def test_bi_lora_is_the_papers_recipe() -> None:
    """arXiv 2404.01959: r 16, alpha 32, dropout .05, queries and keys, Adam 5e-5, batch 32, 20 epochs."""
    recipe = config.read(TuneRecipe, RECIPES / "bi-lora.toml")
    plan, rate = recipe.adapter, recipe.optimizer
    assert (plan.profile, plan.r, plan.alpha, plan.dropout) == ("text-qk", 16, 32, 0.05)
    assert (rate.lr, rate.weight_decay, rate.final, rate.warmup) == (
        5e-5,
        0,
        1,
        0,
    )  # AdamW without decay is Adam
    assert (recipe.run.batch_size, recipe.run.epochs) == (32, 20)
    assert (recipe.data.question, recipe.data.yes, recipe.data.no) == (
        "Is this image AI-generated?",
        "Yes.",
        "No.",
    )


def test_what_a_recipe_may_not_say() -> None:
    values = tomllib.loads((RECIPES / "bi-lora.toml").read_text())
    for key, value, told in (
        ("adapter", {"profile": "everything"}, "one of text-qk"),
        ("base", {"source": "scratch"}, "all-weights where base.source is scratch"),
        ("augment", {"cutmix": 0.5}, "an answer is Yes or No"),
        ("run", {"epochs": 1, "batch_size": 3}, "an even number"),
    ):
        with pytest.raises(ConfigError, match=told):
            config.build(TuneRecipe, {**values, key: value})


@pytest.mark.parametrize("profile", [*lora.PROFILES, "all-weights"])
def test_every_trainable_tensor_gets_a_gradient(folder: Path, profile: str) -> None:
    student = student_of(folder, profile)
    inputs = student.collate(views(4), [0, 1, 0, 1])
    before = {name: p.detach().clone() for name, p in lora.trainable(student).items()}
    assert lora.without_gradient(student, lambda: student(**inputs)[0]) == []
    after = lora.trainable(student)
    assert all(torch.equal(before[name], after[name]) for name in before), "the check leaves no trace"
    if profile != "all-weights":
        assert all(".lora_" in name for name in after)
        n = len({name.rpartition(".lora_")[0] for name in after})
        assert n == {"text-qk": 2, "text-attention": 4, "text": 8, "vision": 18}[profile]
        assert any("vision" in name for name in after) == (profile == "vision")
    # Steps of an optimizer move every one of them.
    optimizer = torch.optim.AdamW(after.values(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):  # A moves once B is not zero
        optimizer.zero_grad()
        student(**inputs)[0].backward()
        optimizer.step()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_the_page_tells_how_many_weights_train() -> None:
    """docs/moondream.md, computed for Moondream 2 at rank 16."""
    import re

    page = (Path(__file__).resolve().parents[2] / "docs" / "moondream.md").read_text("utf-8")
    told = dict(re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ([\d.]+) M \|", page, re.MULTILINE))
    assert set(told) == set(lora.PROFILES)
    with torch.device("meta"):
        layers = dict(Moondream(MoondreamConfig()).named_modules())
    for profile, millions in told.items():
        fitting = [layer for name, layer in layers.items() if re.fullmatch(lora.PROFILES[profile], name)]
        n = sum(16 * (layer.in_features + layer.out_features) for layer in fitting)
        assert n / 1e6 == pytest.approx(float(millions), abs=0.06), profile


def test_bi_lora_leaves_the_values_alone(folder: Path) -> None:
    student = student_of(folder, "text-qk")
    inputs = student.collate(views(4), [0, 1, 0, 1])
    optimizer = torch.optim.AdamW(lora.trainable(student).values(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        student(**inputs)[0].backward()
        optimizer.step()
    for name, parameter in lora.trainable(student).items():
        if ".lora_B." in name:
            third = len(parameter) // 3
            assert not parameter[2 * third :].any(), name
            assert parameter[:third].any()
            assert parameter[third : 2 * third].any()


def test_a_tensor_that_cannot_train_is_named(folder: Path) -> None:
    """The trap of the reference: weights read past their module, so that peft's wrapper is never called."""
    from mai.moondream.model import TextAttention

    class PastItsModule(TextAttention):
        def forward(self, x: Any, positions: Any, mask: Any, cache: Any, layer: int) -> Any:
            wrapped = self.qkv
            self.__dict__["qkv"] = lambda y: torch.nn.functional.linear(y, wrapped.weight, wrapped.bias)
            try:
                return super().forward(x, positions, mask, cache, layer)
            finally:
                del self.__dict__["qkv"]

    student = student_of(folder, "text-attention")
    student.model.text.blocks[1].attn.__class__ = PastItsModule
    inputs = student.collate(views(2), [0, 1])
    with pytest.raises(
        TrainingError, match=r"2 of 8 trainable tensors get no gradient: .*blocks\.1\.attn\.qkv"
    ):
        lora.check_gradients(student, lambda: student(**inputs)[0], "text-attention")
    with pytest.raises(TrainingError, match="fits no layer"):
        lora.attach(load(folder).model, AdapterPlan(), r"text\.blocks\.\d+\.q_proj")


def test_the_loss_is_of_the_answer_alone(folder: Path) -> None:
    student = student_of(folder, "all-weights").eval()
    labels = [1, 0, 1]
    inputs = student.collate(views(3), labels)
    loss, raw = student(**inputs)
    wanted, scores = [], []
    for i, label in enumerate(labels):
        words = [*student.prompt, *student.answers[label]]
        tokens = student.model.vision.tokens(inputs["crops"][i])
        features = student.model.vision.project(tokens, inputs["tiling"])
        logits = student.model(features[None], torch.tensor([words]), torch.tensor([len(words)]), 0)[0]
        n = len(student.prompt)
        wanted += [-logits[n + j].log_softmax(-1)[t] for j, t in enumerate(student.answers[label])]
        first = logits[n]
        scores.append(first[student.yes].logsumexp(-1) - first[student.no].logsumexp(-1))
    assert float(loss.detach()) == pytest.approx(float(torch.stack(wanted).mean().detach()), abs=1e-5)
    assert raw.tolist() == pytest.approx([float(s.detach()) for s in scores], abs=1e-4)
    # The answer that stands behind it does not leak into the score.
    other = student(**student.collate(views(3), [0, 1, 0]))[1]
    assert torch.allclose(raw, other, atol=1e-5)


def test_a_student_scores_as_the_chat_does(folder: Path) -> None:
    """One tile is the global view again: seen once in training, the numbers are the same."""
    from mai.moondream.chat import Chat

    student = student_of(folder, "all-weights")
    pictures = np.stack(views(3))
    assert Chat(student.base).score(list(pictures)) == pytest.approx(
        student.score(pictures).tolist(), abs=1e-4
    )
    assert student.training


def test_questions_that_cannot_be_asked(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"Shorten data\.question"):
        student_of(folder, "all-weights", SamplePlan(size_px=84, question="is it a dog " * 200))
    with pytest.raises(UsageError, match="begin with the same token"):
        student_of(folder, "all-weights", SamplePlan(size_px=84, yes="one dog", no="one cat"))
    own = student_of(folder, "all-weights", SamplePlan(size_px=84, yes="red", no="green"))
    assert own.yes != own.no


def pairs_set(folder: Path, n: int = 6, extra: int = 2) -> Path:
    """A CSV of pairs whose halves differ in size and format, and unpaired pictures beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["authentic,synthetic,id,split"]
    for i in range(n):
        Pil.fromarray(draw(i, False)).resize((160, 90)).save(folder / f"a{i}.jpg", quality=88)
        Pil.fromarray(draw(i, True)).resize((300, 300)).save(folder / f"s{i}.png")
        split = "train" if i < n - extra else "validation"
        lines.append(f"a{i}.jpg,s{i}.png,p{i},{split}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


def test_units_keep_pairs_together(tmp_path: Path) -> None:
    rows = read_set(pairs_set(tmp_path)).rows
    train = [i for i, row in enumerate(rows) if row.split == "train"]
    sampler = UnitSampler(rows, train, 0, 0.5, [84, 200])
    assert (len(sampler), len(sampler.partner)) == (8, 4)
    batches = sampler.epoch(0, 10, 3)
    assert batches == UnitSampler(rows, train, 0, 0.5, [84, 200]).epoch(0, 10, 3)
    assert batches != sampler.epoch(1, 10, 3)
    sides = set()
    for batch in batches:
        assert len({unit.size_px for unit in batch}) == 1
        sides.add(batch[0].size_px)
        for unit in batch:
            one, other = (rows[i] for i in unit.rows)
            assert (one.label, other.label) == (0, 1)
            assert one.image.removesuffix("/authentic") == other.image.removesuffix("/synthetic")
            assert unit.seeds[0] == unit.seeds[1]
    assert sides == {84, 200}
    with pytest.raises(DataError, match="no synthetic picture"):
        UnitSampler(rows, [i for i in train if not rows[i].label], 0, 0.5, [84])


def test_pictures_without_a_pair_are_balanced_by_source() -> None:
    rows = [Row(f"/a{i}", 0, "train", "big" if i < 90 else f"small{i}") for i in range(100)]
    rows += [Row(f"/s{i}", 1, "train", "gen") for i in range(50)]
    sampler = UnitSampler(rows, range(150), 0, 1.0, [84])
    units = [unit for batch in sampler.epoch(0, 100, 11) for unit in batch]
    big = np.mean([rows[unit.rows[0]].source == "big" for unit in units])
    assert 0.05 < big < 0.15  # one source of eleven, not 90 of 100 pictures
    assert all(unit.seeds[0] != unit.seeds[1] for unit in units)


def auroc_of_size_and_tiling(facts: list[tuple[int, ...]], labels: list[int]) -> float:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_predict

    from mai.measure.metrics import auroc

    forest = RandomForestClassifier(20, random_state=0, n_jobs=1)
    return auroc(
        cross_val_predict(forest, np.array(facts), labels, cv=4, method="predict_proba")[:, 1], labels
    )


def test_size_and_tiling_say_nothing_about_the_class(tmp_path: Path) -> None:
    """Authentic 16:9, synthetic square and larger: sizes alone tell them apart, until the guard has been by."""
    vision = VisionConfig(crop_px=84, overlap_patches=1)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        synthetic = bool(i % 2)
        long, short = (int(rng.integers(200, 420)), 0)
        short = long if synthetic else long * 9 // 16
        Pil.fromarray(np.full((short, long, 3), 90 + i, np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(Row(str(tmp_path / f"{i}.png"), int(synthetic), "train"))

    def facts(pixels: Any) -> tuple[int, ...]:
        return (*pixels.shape[:2], *tiling_of(*pixels.shape[:2], vision))

    stored = [facts(np.asarray(Pil.open(row.file))) for row in rows]
    assert auroc_of_size_and_tiling(stored, [row.label for row in rows]) > 0.9
    sampler = UnitSampler(rows, range(60), 0, 0.5, [84, 150, 300])
    seen, labels = [], []
    for batch in sampler.epoch(0, 30, 4):
        for unit in batch:
            for row, seed in zip(unit.rows, unit.seeds, strict=True):
                seen.append(facts(sample(rows[row], seed, unit.size_px, Augmentation())))
                labels.append(rows[row].label)
    assert len({fact[2:] for fact in seen}) > 1, "several tilings are seen"
    assert 0.4 < auroc_of_size_and_tiling(seen, labels) < 0.6


def test_a_picture_that_cannot_be_read_is_left_out_with_its_unit(tmp_path: Path, folder: Path) -> None:
    rows = list(read_set(pairs_set(tmp_path)).rows)
    (tmp_path / "s1.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    student = student_of(folder, "text-qk")
    made = UnitViews(rows, Augmentation(), student.collate)
    sampler = UnitSampler(rows, range(len(rows)), 0, 0.0, [84])
    units = {rows[u.rows[0]].image: u for batch in sampler.epoch(0, 20, 4) for u in batch}
    bad, good = units["p1/authentic"], units["p2/authentic"]
    both = made[[bad, good]]
    assert both.n_units == 1
    assert [Path(file).name for file in both.broken] == ["s1.png"]
    assert both.inputs is not None
    assert len(both.inputs["words"]) == 2
    assert made[[bad]].inputs is None


def test_a_model_from_scratch_has_a_tokenizer_and_cosines_of_its_own(tmp_path: Path) -> None:
    sizes = MoondreamConfig(
        VisionConfig(
            n_layers=1, dim=96, ff_dim=64, n_heads=2, patch_px=8, crop_px=40, max_crops=1, proj_dim=64
        ),
        TextConfig(n_layers=1, dim=32, ff_dim=48, n_heads=2, vocab=300, context=128),
    )
    made = load(scratch.build(tmp_path / "s", sizes, seed=3, texts=["red"]))
    again = load(scratch.build(tmp_path / "t", sizes, seed=3, texts=["red"]))
    assert made.fingerprint == again.fingerprint
    assert made.revision.templates == scratch.TEMPLATES
    assert made.note == scratch.NOTE
    student = MoondreamStudent(made, SamplePlan(size_px=40))
    assert made.tokenizer.decode(student.answers[1]).startswith("Yes.")
    rows = scratch.cosine_rows(8, 96)
    assert rows.shape == (96, 192)
    products = rows @ rows.T
    assert np.abs(products - np.diag(np.diag(products))).max() < 0.2 * np.diag(products).max()
    model: Moondream = made.model
    assert torch.allclose(model.vision.patch_emb.weight, torch.from_numpy(rows).float(), atol=1e-6)


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen3_vl", "internvl", "florence2", "blip-2"])
def test_other_models_train_in_every_profile(kind: str, tmp_path: Path) -> None:
    """Whatever an adapter is put on gets a gradient; layers that cannot are left out, by name."""
    import small_vlms

    from mai.moondream.others import layers_of, open_other

    place = small_vlms.build(tmp_path / kind, kind)
    side = small_vlms.SIDES.get(kind, 56)
    for profile in ("text-qk", "text-attention", "text", "vision"):
        recipe = config.read(
            TuneRecipe,
            RECIPES / "bi-lora.toml",
            ["base.back_end=transformers", f"base.source={place}", f"data.size_px={side}",
             f"adapter.profile={profile}", "adapter.r=2"],
        )  # fmt: skip
        student, facts = open_other(recipe)
        student.train()
        inputs = student.collate(views(4, side), [0, 1, 1, 0])
        own = {**on_device(dict(inputs), student.device)}
        assert lora.without_gradient(student, lambda own=own, student=student: student(**dict(own))[0]) == []
        adapted = {name.rpartition(".lora_")[0] for name in lora.trainable(student)}
        wanted = layers_of(student.model, profile)
        left_out = facts["note"].count("qformer")
        assert len(adapted) + left_out >= 2
        assert not any("lm_head" in name for name in wanted)
        assert kind == "blip-2" or "left out" not in facts["note"]
    # What is asked does not move with the answer that stands behind it; pictures do move the score.
    pictures = np.stack([np.ascontiguousarray(view[:side, :side]) for view in views(3, side)])
    together = student.score(pictures)
    assert together == pytest.approx([student.score(pictures[i : i + 1])[0] for i in range(3)], abs=1e-4)
    assert len({round(float(z), 6) for z in together}) == 3
    with torch.inference_mode():
        student.eval()
        one = student(**student.collate(list(pictures), [1, 1, 1]))[1]
    assert one.tolist() == pytest.approx(together.tolist(), abs=1e-5)


def test_other_models_that_cannot_be_used(tmp_path: Path) -> None:
    from mai.errors import WeightsError
    from mai.moondream.others import layers_of, open_other

    for source, told in (("", "name the model"), (str(tmp_path), "no config.json")):
        recipe = config.read(
            TuneRecipe, RECIPES / "bi-lora.toml", ["base.back_end=transformers", f"base.source={source}"]
        )
        with pytest.raises((UsageError, WeightsError), match=told):
            open_other(recipe)
    with pytest.raises(UsageError, match="all-weights is for models from scratch"):
        layers_of(torch.nn.Linear(2, 2), "all-weights")
