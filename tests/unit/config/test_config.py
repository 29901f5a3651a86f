"""TOML -> dataclass: wrong keys and values are told with file, key and value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from mai import config
from mai.errors import ConfigError
from mai.training import architectures
from mai.training.recipe import Recipe


@dataclass(frozen=True)
class Inner:
    share: float = 0.5
    kind: Literal["a", "b"] = "a"
    sizes: tuple[int, ...] = ()
    note: str | None = None

    def __post_init__(self) -> None:
        config.need_share("share", self.share)


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=Inner)
    fast: bool = False


def made(tmp_path: Path, text: str, *overrides: str) -> Outer:
    (tmp_path / "a.toml").write_text(text)
    return config.read(Outer, tmp_path / "a.toml", overrides)


def test_reads_tables_numbers_and_lists(tmp_path: Path) -> None:
    read = made(
        tmp_path, "count = 3\nfast = true\n[inner]\nshare = 1\nkind = 'b'\nsizes = [1, 2]\nnote = 'x'"
    )
    assert read == Outer(3, Inner(1.0, "b", (1, 2), "x"), True)
    assert isinstance(read.inner.share, float)


def test_overrides_apply_in_order_and_read_as_toml_or_text(tmp_path: Path) -> None:
    read = made(tmp_path, "count = 3", "count=4", "count=5", "inner.share=0.25", "inner.note=plain words")
    assert read == Outer(5, Inner(share=0.25, note="plain words"))


@pytest.mark.parametrize(
    ("text", "overrides", "sentence"),
    [
        ("cuont = 3", (), "unknown key 'cuont'. Did you mean 'count'?"),
        ("count = 3\n[inner]\nshaer = 1", (), "unknown key 'shaer'. Did you mean 'share'?"),
        ("count = 3\nzzz = 1", (), "Known: count, fast, inner"),
        ("fast = true", (), "the key 'count' is missing"),
        ("count = 'x'", (), "count takes a whole number, not 'x'"),
        ("count = true", (), "count takes a whole number, not True"),
        ("count = 2.5", (), "count takes a whole number, not 2.5"),
        ("count = 3\nfast = 1", (), "fast takes true or false, not 1"),
        ("count = 3\ninner = 4", (), "inner is a table, not 4"),
        ("count = 3\n[inner]\nkind = 'c'", (), "kind is one of a, b; not 'c'"),
        ("count = 3\n[inner]\nsizes = 4", (), "sizes is a list, not 4"),
        ("count = 3\n[inner]\nshare = 1.5", (), "share takes 0 to 1, not 1.5"),
        ("count = 3", ("inner.share",), "--set takes key=value, not 'inner.share'"),
        ("count = 3", ("count.x=1",), "'count' is not a table"),
        ("count = ", (), "not valid TOML"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError) as told:
        made(tmp_path, text, *overrides)
    assert sentence in str(told.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
        config.read(Outer, tmp_path / "none.toml")


SHIPPED = [(arch, name) for arch in architectures.names() for name in architectures.load(arch).recipes]


@pytest.mark.parametrize(("arch", "name"), SHIPPED)
def test_shipped_recipes_load_and_come_back(arch: str, name: str) -> None:
    architecture = architectures.load(arch)
    recipe = config.read(architecture.recipe, architecture.recipes[name])
    assert recipe.architecture == arch
    assert config.build(architecture.recipe, config.to_dict(recipe)) == recipe  # as a checkpoint holds it


@pytest.mark.parametrize(
    "override",
    [
        "run.epochs=0", "run.batch_size=1", "run.seed=-1", "run.label_smoothing=1", "run.ema=1.0", "run.patience=-1",
        "run.validation_views=1", "run.frozen_share=2", "run.checkpoint_minutes=0", "run.layout=fast",
        "optimizer.lr=0", "optimizer.lr=nan", "optimizer.lr=inf", "optimizer.weight_decay=-1", "optimizer.warmup=1",
        "optimizer.final=-0.1", "optimizer.clip=-1", "data.size_px=0", "data.whole_share=1.1", "data.source_power=-1",
        "augment.scale_low=0", "augment.codec_passes=-1", "augment.quality_low=0", "augment.quality_low=98",
        "augment.mask=2", "dropout=1",
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(override: str) -> None:
    key = override.partition("=")[0].rpartition(".")[2]
    with pytest.raises(ConfigError, match=rf"base\.toml.*{key}"):
        config.read(Recipe, architectures.load("resnet").recipes["base"], [override])


def test_every_recipe_key_is_explained_in_its_docstring() -> None:
    def check(cls: type) -> None:
        for f in dataclasses.fields(cls):
            assert f"        {f.name}: " in (cls.__doc__ or ""), f"{cls.__name__}.{f.name}"

    import typing

    check(Recipe)
    for kind in typing.get_type_hints(Recipe).values():
        if dataclasses.is_dataclass(kind):
            check(kind)
