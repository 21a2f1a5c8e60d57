"""Config files: loading, strict overrides, groups to dataclasses, and every config that ships."""

import dataclasses
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

import osjax
from osjax.errors import UserError
from osjax.parts.config import BUILT_IN, dotted_keys, load
from osjax.parts.groups import to_dataclass

SOURCE = """
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

def get_config():
    return ConfigDict({
        "lr": 1e-3, "steps": 10, "name": "small", "ema": True, "note": None, "seed": placeholder(int),
        "sizes": (1, 2), "betas": [0.9, 0.99], "verbs": ("pan", "zoom"), "empty": (),
        "model": {"width": 64, "rope": {"theta": 1e4}},
    })
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "my.py").write_text(SOURCE)
    return tmp_path / "my.py"


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("lr", "1e-5", 1e-5),
        ("lr", "1", 1.0),
        ("lr", "inf", float("inf")),
        ("steps", "-3", -3),
        ("name", "7", "7"),
        ("name", "a,b", "a,b"),
        ("ema", "false", False),
        ("ema", "False", False),
        ("note", "12", 12),
        ("note", "none", None),
        ("note", "free text", "free text"),
        ("seed", "5", 5),
        ("seed", "none", None),
        ("sizes", "(3, 4, 5)", (3, 4, 5)),
        ("sizes", "3,", (3,)),
        ("betas", "0.8,1", [0.8, 1.0]),
        ("verbs", "tilt,pan", ("tilt", "pan")),
        ("empty", "(1, 'a')", (1, "a")),
        ("model.rope.theta", "100", 100.0),
    ],
)
def test_an_override_takes_the_type_of_its_default(path, key, text, value):
    default = load(path)
    cfg = load(path, [(key, text)])
    got = cfg
    for name in key.split("."):
        got = got[name]
    assert got == value and type(got) is type(value)
    if value is not None:
        assert cfg.to_dict() != default.to_dict()  # the override did something
    assert cfg.is_locked


@pytest.mark.parametrize(
    "key, text",
    [
        ("steps", "1.5"),
        ("steps", "True"),
        ("steps", "none"),
        ("steps", "ten"),
        ("lr", "fast"),
        ("lr", "True"),
        ("ema", "1"),
        ("ema", "yes"),
        ("seed", "x"),
        ("sizes", "3"),
        ("sizes", "1.5,2"),
        ("betas", "a,b"),
        ("verbs", "(1, 2)"),
    ],
)
def test_an_override_of_the_wrong_type_is_an_error(path, key, text):
    with pytest.raises(UserError, match=f"config key {key} takes") as error:
        load(path, [(key, text)])
    assert error.value.status == 2


@pytest.mark.parametrize(
    "key, nearest",
    [("lrr", "lr"), ("model.widht", "model.width"), ("modle.width", "model.width"), ("theta", "model.rope.theta")],
)
def test_an_unknown_key_names_the_nearest_valid_one(path, key, nearest):
    with pytest.raises(UserError, match=rf"unknown config key {key}; did you mean {nearest}\?"):
        load(path, [(key, "1")])


def test_among_equal_leaves_the_nearest_group_is_named():
    with pytest.raises(UserError, match=r"did you mean stages\.stage2_i2v\.optimizer\.lr\?"):
        load("configs/smoke.py", [("stages.stage2_i2v.optimzer.lr", "1")])


def test_a_key_below_a_value_and_a_whole_group_are_errors(path):
    with pytest.raises(UserError, match="unknown config key lr.x"):
        load(path, [("lr.x", "1")])
    with pytest.raises(UserError, match="model is a group; set a key inside it, such as model."):
        load(path, [("model", "1")])


def test_overrides_from_python_may_be_values(path):
    cfg = load(path, {"lr": 2, "sizes": [7], "model.width": 8})
    assert (cfg.lr, cfg.sizes, cfg.model.width) == (2.0, (7,), 8)
    with pytest.raises(UserError, match="takes int"):
        load(path, {"steps": 1.5})


def test_the_loaded_config_is_locked_against_new_keys(path):
    with pytest.raises(AttributeError):
        load(path).learning_rate = 1.0


@pytest.mark.parametrize(
    "source, says",
    [
        ("x = 1", "has no get_config"),
        ("get_config = 3", "has no get_config"),
        ("def get_config():\n    return {}", "gave dict"),
        ("def get_config(:", "failed at line 1: SyntaxError"),
        ("\n\nimport no_such_module", "failed at line 3: ModuleNotFoundError"),
    ],
)
def test_a_config_file_that_is_none_is_one_readable_error(tmp_path, source, says):
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(UserError, match=says) as error:
        load(tmp_path / "bad.py")
    assert error.value.status == 2 and "\n" not in str(error.value)


def test_a_missing_config_names_the_nearest_existing_one(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "my_own.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"did you mean configs/my_own.py\?"):
        load("configs/my_onw.py")
    with pytest.raises(UserError, match=r"did you mean configs/my_own.py\?"):
        load("my_own")


@dataclasses.dataclass(frozen=True)
class Rope:
    theta: float
    axes: tuple[int, ...] = (16, 56)


@dataclasses.dataclass(frozen=True)
class Model:
    width: int
    rope: Rope | None = None
    extra: dict | None = None

    def __post_init__(self):
        if self.width % 2:
            raise ValueError(f"width {self.width} is odd")


def test_groups_become_nested_frozen_dataclasses():
    group = ConfigDict({"width": 64, "rope": {"theta": 1e4, "axes": [8, 8]}, "extra": {"a": 1}})
    model = to_dataclass(Model, group)
    assert model == Model(64, Rope(1e4, (8, 8)), {"a": 1})
    hash(model.rope)


@pytest.mark.parametrize(
    "group, says",
    [
        ({"width": 2, "rop": None}, r"unknown config key model.rop; did you mean rope\?"),
        ({"width": 2, "rope": {"theta": 1.0, "axis": ()}}, r"unknown config key model.rope.axis; did you mean axes\?"),
        ({"rope": None}, "config group model lacks width"),
        ({"width": 3}, "config group model: width 3 is odd"),
    ],
)
def test_groups_that_do_not_fit_are_errors(group, says):
    with pytest.raises(UserError, match=says):
        to_dataclass(Model, ConfigDict(group), "model")


def test_a_placeholder_left_empty_reaches_the_dataclass_as_none():
    assert to_dataclass(Model, ConfigDict({"width": 2, "rope": placeholder(dict)})).rope is None


def test_load_config_is_public(path):
    assert osjax.load_config(path).steps == 10
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = osjax.no_such_name


SHIPPED = sorted(p for p in BUILT_IN.rglob("*.py") if "def get_config(" in p.read_text())


@pytest.mark.parametrize("shipped", SHIPPED, ids=[str(p.relative_to(BUILT_IN)) for p in SHIPPED])
def test_every_shipped_config_loads_and_says_what_it_is(shipped: Path):
    cfg = load(shipped)
    assert dotted_keys(cfg) and cfg.is_locked
    docstring = shipped.read_text().lstrip()
    assert docstring.startswith('"""'), "a config's docstring holds its command, hardware, time and expected loss"
    with pytest.raises(UserError, match="unknown config key"):
        load(shipped, [("no_such_key", "1")])
