"""Moondream: equal to the reference's numbers, batches equal singles, the cache changes nothing, loading is strict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from labelled_pictures import draw

torch = pytest.importorskip("torch", reason="Moondream needs the extra 'vlm'")
pytest.importorskip("tokenizers", reason="Moondream needs the extra 'vlm'")
safetensors = pytest.importorskip("safetensors.torch", reason="Moondream needs the extra 'vlm'")

from mai.cli import group  # noqa: E402
from mai.errors import UsageError, WeightsError  # noqa: E402
from mai.moondream import golden, tiny  # noqa: E402
from mai.moondream.chat import Chat, padded  # noqa: E402
from mai.moondream.crops import crops_of, normalised, tiling_of  # noqa: E402
from mai.moondream.load import fill, load, our_name  # noqa: E402
from mai.moondream.model import Moondream, MoondreamConfig  # noqa: E402
from mai.moondream.vision import VisionConfig, stitch  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "moondream"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def chat(folder: Path) -> Chat:
    return Chat(load(folder))


PICTURES = [draw(i, bool(i % 2))[: 60 + 70 * i, : 300 - 60 * i] for i in range(4)]
QUESTIONS = ["Is this image AI-generated?", "what is it", "Is it a dog or a cat or a house?", "red"]


def test_golden_numbers_of_the_reference() -> None:
    if not GOLDEN.is_dir():
        pytest.skip("../shared/golden/moondream is not there")
    done = CliRunner().invoke(group, ["doctor", "moondream", "--golden", str(GOLDEN), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["moondream"]
    assert len(told) == len(json.loads((GOLDEN / "golden.json").read_text())["cases"])
    assert max(max(c["image_features"], c["logits"], c["loss"]) for c in told) < 1e-5


def test_golden_says_what_is_off(tmp_path: Path) -> None:
    """A folder of the same form, made by our own model with other sizes; one number changed is found."""
    config = {"vision": {**tiny.SIZES["vision"]}, "text": {**tiny.SIZES["text"], "vocab": 600}}
    case = {
        "case": "x",
        "height": 90,
        "width": 200,
        "image_seed": 4,
        "question_ids": [1, 7, 9, 3],
        "answer_ids": [5, 0],
    }
    model = golden.model_of("salt", config)
    with torch.inference_mode():
        crops, tiling = crops_of(golden.picture_of(case), model.config.vision)
        features = model.vision(torch.from_numpy(normalised(crops)), tiling)
        words = torch.tensor([[1, 7, 9, 3, 5, 0]])
        logits = model(features[None], words, torch.tensor([6]), 0)[0]
        loss = torch.nn.functional.cross_entropy(logits[4:6], torch.tensor([5, 0]))
    arrays = {"x_vision": features[::27, :16].numpy(), "x_logits": logits[3:, ::257].numpy()}
    (tmp_path / "golden.json").write_text(
        json.dumps({"salt": "salt", "config": config, "cases": [{**case, "loss": float(loss)}]})
    )
    np.savez(tmp_path / "golden.npz", **arrays)
    args = ["doctor", "moondream", "--golden", str(tmp_path)]
    assert CliRunner().invoke(group, args).exit_code == 0
    arrays["x_logits"][0, 0] += 3e-4
    np.savez(tmp_path / "golden.npz", **arrays)
    done = CliRunner().invoke(group, args)
    assert done.exit_code == 1
    assert "FAULT" in done.output
    assert "logits 3.0" in done.output
    arrays["x_logits"][0, 0] = np.nan
    np.savez(tmp_path / "golden.npz", **arrays)
    assert CliRunner().invoke(group, args).exit_code == 1
    with pytest.raises(UsageError, match="no golden numbers"):
        golden.check(tmp_path / "none")


@pytest.mark.parametrize(
    ("height", "width", "tiling"),
    [(600, 800, (2, 4)), (1024, 1024, (3, 3)), (768, 1024, (3, 4)), (480, 640, (2, 4)), (300, 300, (1, 1)),
     (378, 4000, (1, 1)), (4000, 3000, (4, 2)), (100, 90, (1, 1))],
)  # fmt: skip
def test_tilings(height: int, width: int, tiling: tuple[int, int]) -> None:
    # 1024x1024 makes 10 crops, 768x1024 13, 640x480 9, 300x300 2.
    assert tiling_of(height, width, VisionConfig()) == tiling


def test_stitched_tiles_are_the_map_that_they_were_cut_from() -> None:
    whole = torch.arange(2 * 6 + 2 * 1 + 0).view(-1, 1, 1) * 100 + torch.arange(3 * 6 + 2).view(1, -1, 1)
    tiles = torch.stack([whole[r * 6 : r * 6 + 8, c * 6 : c * 6 + 8] for r in range(2) for c in range(3)])
    assert torch.equal(stitch(tiles, (2, 3), 1), whole)


def test_any_shape_is_read(chat: Chat) -> None:
    for height, width in ((1, 1), (1, 900), (700, 3), (84, 84), (85, 200)):
        features = chat.features([np.full((height, width, 3), 90, np.uint8)])
        assert features.shape == (1, 36, 64)
        assert bool(torch.isfinite(features).all())


def test_batches_equal_singles(chat: Chat) -> None:
    chat._features.clear()
    together = chat.features(PICTURES)
    chat._features.clear()
    apart = torch.cat([chat.features([picture]) for picture in PICTURES])
    assert torch.allclose(together, apart, atol=1e-5)
    prompts = chat._words(QUESTIONS)
    assert len({len(p) for p in prompts}) > 1
    logits = chat.first_logits(together, prompts)
    singles = [chat.first_logits(together[i : i + 1], prompts[i : i + 1]) for i in range(4)]
    assert torch.allclose(logits, torch.cat(singles), atol=1e-4)
    scores = chat.score(PICTURES)
    assert scores == pytest.approx([chat.score([p])[0] for p in PICTURES], abs=1e-4)
    assert len({round(s, 4) for s in scores}) > 1
    assert chat.answer(PICTURES, QUESTIONS, 8) == [
        chat.answer([p], q, 8)[0] for p, q in zip(PICTURES, QUESTIONS, strict=True)
    ]


def test_the_cache_changes_no_token(chat: Chat) -> None:
    features, prompts = chat.features(PICTURES), chat._words(QUESTIONS)
    with_cache = chat.generate(features, prompts, 12)
    assert with_cache == chat.generate(features, prompts, 12, use_cache=False)
    assert any(with_cache)


def test_features_are_made_once_a_picture_whatever_the_question(chat: Chat) -> None:
    base, chat = chat.base, Chat(chat.base)
    chat.score(PICTURES)
    chat.score([PICTURES[0].copy()], "what is it")
    chat.answer(PICTURES[:2], "what is it", 2)
    assert chat.n_encoded == len(PICTURES)
    small = Chat(base, n_cached=2)
    small.score(PICTURES)
    assert len(small._features) == 2


def test_a_picture_that_was_read_is_not_read_again(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of the picture are kept within the memory given; scores and words are the same without."""
    none = Chat(chat.base, read_bytes=0)
    fresh = Chat(chat.base)
    wanted = [none.score(PICTURES, question) for question in QUESTIONS]
    answers = none.answer(PICTURES, QUESTIONS, 6)
    n_read: list[int] = []
    plain = Moondream.read_picture
    monkeypatch.setattr(
        Moondream, "read_picture", lambda self, f, bos: n_read.append(len(f)) or plain(self, f, bos)
    )
    for question, scores in zip(QUESTIONS, wanted, strict=True):
        assert fresh.score(PICTURES, question) == pytest.approx(scores, abs=1e-4)
    assert fresh.answer(PICTURES, QUESTIONS, 6) == answers
    assert fresh.score([PICTURES[2], PICTURES[0]]) == pytest.approx(
        [none.score([PICTURES[i]])[0] for i in (2, 0)], abs=1e-4
    )
    assert n_read[0] == len(PICTURES)
    assert n_read.count(len(PICTURES)) == 1
    one = next(iter(fresh._read.values())).n_bytes
    small = Chat(chat.base, read_bytes=2 * one)
    assert small.score(PICTURES) == pytest.approx(fresh.score(PICTURES), abs=1e-4)
    assert len(small._read) == 2


def test_captions_by_length_and_wrong_use(chat: Chat) -> None:
    for length in ("short", "normal", "long"):
        assert len(chat.caption(PICTURES[:2], length, max_tokens=5)) == 2
    with pytest.raises(UsageError, match="short, normal, long"):
        chat.caption(PICTURES[:1], "tiny")  # type: ignore[arg-type]
    with pytest.raises(
        UsageError, match=r"A question has \d+ tokens; beside a picture there is room for 474"
    ):
        chat.answer(PICTURES[:1], "what is it " * 200)
    with pytest.raises(UsageError, match="1 pictures and 2 questions"):
        chat.answer(PICTURES[:1], ["a", "b"])


def test_words_of_padding_are_never_looked_at(chat: Chat) -> None:
    features = chat.features(PICTURES[:1])
    tokens, lengths = padded([[1, 5, 7]], torch.device("cpu"))
    long = torch.cat([tokens, torch.full((1, 4), 11)], 1)
    model = chat.model
    with torch.inference_mode():
        short_logits = model(features, tokens, lengths, 0)
        long_logits = model(features, long, lengths, 0)[:, :4]
    assert torch.allclose(short_logits, long_logits, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_other_precisions_are_near(folder: Path, chat: Chat, dtype: str) -> None:
    other = Chat(load(folder, dtype=dtype))
    assert other.model.text.wte.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert other.score(PICTURES) == pytest.approx(chat.score(PICTURES), abs=0.1)


def test_578_tensors_and_the_parameter_counts_of_moondream_2() -> None:
    with torch.device("meta"):
        model = Moondream(MoondreamConfig())
    assert len(model.state_dict()) == 578
    assert sum(p.numel() for p in model.vision.parameters()) / 1e6 == pytest.approx(448.6, abs=0.05)
    assert sum(p.numel() for p in model.text.parameters()) / 1e6 == pytest.approx(1418.3, abs=0.05)


def as_old(name: str) -> str:
    """One of our names as the older layout calls it."""
    visual = "vision_encoder.encoder.model.visual."
    for new, old in (
        ("vision.patch_emb.", visual + "patch_embed.linear."), ("vision.pos_emb", visual + "pos_embed"),
        ("vision.post_ln.", visual + "norm."), ("vision.proj_mlp.", "vision_encoder.projection.mlp."),
        ("text.wte", "text_model.transformer.embd.wte.weight"), ("text.post_ln.", "text_model.lm_head.ln."),
        ("text.lm_head.", "text_model.lm_head.linear."),
    ):  # fmt: skip
        if name.startswith(new):
            return name.replace(new, old, 1)
    if name.startswith("vision.blocks."):
        return visual + name.removeprefix("vision.").replace(".ln1.", ".norm1.").replace(".ln2.", ".norm2.")
    name = name.replace("text.blocks.", "text_model.transformer.h.")
    return name.replace(".attn.qkv.", ".mixer.Wqkv.").replace(".attn.proj.", ".mixer.out_proj.")


def test_both_layouts_of_keys_load_and_faults_are_named(folder: Path, chat: Chat) -> None:
    state = {name: value.clone() for name, value in chat.model.state_dict().items()}
    for renamed in ({f"model.{n}": v for n, v in state.items()}, {as_old(n): v for n, v in state.items()}):
        model = Moondream(chat.model.config)
        fill(model, {**renamed, "model.region.coord_encoder.weight": torch.zeros(2)}, "a file")
        assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())
    model = Moondream(chat.model.config)
    lacking = {n: v for n, v in state.items() if n != "text.blocks.1.attn.qkv.bias"}
    with pytest.raises(
        WeightsError, match=r"1 tensors are missing, the first is 'text\.blocks\.1\.attn\.qkv\.bias'"
    ):
        fill(model, lacking, "a file")
    with pytest.raises(WeightsError, match=r"unexpected tensor 'text\.blocks\.9\.ln\.weight'"):
        fill(model, {**state, "text.blocks.9.ln.weight": torch.ones(3)}, "a file")
    with pytest.raises(WeightsError, match=r"is \(3,\), wanted \(64,\)"):
        fill(model, {**state, "text.post_ln.bias": torch.ones(3)}, "a file")
    assert our_name("region_model.x") is None


def test_bad_folders_are_told_in_a_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=r"no \*\.safetensors"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"tokenizer\.json is missing"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "mai.json").write_bytes((folder / "mai.json").read_bytes())
    with pytest.raises(WeightsError, match="partial download"):
        load(tmp_path)
    with pytest.raises(WeightsError, match="fp32, bf16 or fp16"):
        load(folder, dtype="int3")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    done = CliRunner().invoke(group, ["doctor", "moondream", "--fetch", "--source", "nobody/nothing-here"])
    assert done.exit_code == 1
    assert "could not be fetched" in done.output


def test_doctor_tries_a_model_from_a_folder(folder: Path) -> None:
    done = CliRunner().invoke(group, ["doctor", "moondream", "--fetch", "--source", str(folder)])
    assert "random weights" in done.output
    assert "sha256" in done.output
    assert "score" in done.output


def test_files_are_hashed_and_recorded(folder: Path, chat: Chat) -> None:
    assert set(chat.base.files) == {"model.safetensors", "tokenizer.json", "mai.json"}
    assert all(len(digest) == 64 for digest in chat.base.files.values())
    assert chat.base.note == tiny.NOTE
    assert load(folder).fingerprint == chat.base.fingerprint
