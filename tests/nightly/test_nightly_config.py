"""The configuration is read strictly: what is wrong is told with file and key, and nothing is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from nights import SCRIPTS, made_site

sys.path.insert(0, str(SCRIPTS))

from night_config import ConfigError, config_from_file

GOOD = """
[[models]]
name = "net"
file = "net.onnx"
data = "data.npz"
[[precisions]]
name = "int8"
int8 = true
[[targets]]
name = "cpu"
target = "onnxruntime"
"""

WRONG = {
    "keep_night = 3": ("unknown key 'keep_night'", "'keep_nights'"),
    "[perf]\nround = 3": ("[perf]: unknown key 'round'", "'rounds'"),
    "[perfs]\nrounds = 3": ("unknown key 'perfs'", "'perf'"),
    "[perf]\nrounds = true": ("[perf]: rounds is int", "True"),
    "[perf]\nrounds = -1": ("[perf]: rounds", "not between"),
    "[perf]\nround_s = nan": ("[perf]: round_s", "not between"),
    "[perf]\noptions = 'x'": ("[perf]: options is a list of texts",),
    "[check]\nfloors = { latency_ms = 3 }": ("[check]: floors is a table of texts",),
    "[timeouts]\nbench_s = 0": ("[timeouts]: bench_s must be above 0",),
    "perf = 3": ("[perf] is a table",),
    "output = 3": ("output is a text",),
    "x = ": ("not readable as TOML",),
}


def read(folder: Path, text: str) -> str:
    """What is said of a configuration."""
    file = folder / "night.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config_from_file(file)
    return str(caught.value)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_with_file_and_key(tmp_path: Path, wrong: str) -> None:
    """Unknown keys with the closest known one, and values of the wrong kind."""
    said = read(tmp_path, wrong + "\n" + GOOD)
    assert said.startswith(str(tmp_path / "night.toml"))
    for part in WRONG[wrong]:
        assert part in said


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('name = "net"\n', "", "[[models]] 1: name is missing"),
        ('name = "net"', 'name = "../net"', "[[models]] 1: name: '../net' holds more"),
        ('name = "net"', 'name = "net"\nprecisions = ["int4"]', "[[models]] 1: precisions: there is no 'int4'"),
        ('target = "onnxruntime"', 'target = "cuda"', "[[targets]] 1: target: 'cuda'"),
        ("int8 = true", "int8 = true\n[[precisions]]\nname = 'int8'", "[[precisions]] 2: name: 'int8' is taken"),
        ("[[models]]", "[models]", "[[models]] is missing"),
        ('file = "net.onnx"', 'file = "net.onnx"\nmin_sqr = 3', "did you mean 'min_sqnr'?"),
    ],
)
def test_what_is_missing_or_names_nothing_is_told(tmp_path: Path, old: str, new: str, part: str) -> None:
    """Names that are missing, taken, no file name, or not there."""
    assert part in read(tmp_path, GOOD.replace(old, new))


def test_relative_paths_begin_at_the_file(tmp_path: Path) -> None:
    """Whatever the current folder; functions that give data are no paths."""
    file = tmp_path / "night.toml"
    file.write_text(GOOD.replace('data = "data.npz"', 'data = "package.module:samples"'))
    config = config_from_file(file)
    assert config.models[0].file == str(tmp_path / "net.onnx")
    assert config.models[0].data == "package.module:samples"
    assert config.history == tmp_path / "nightly" / "history.db"


def test_the_example_is_right() -> None:
    """The example that is handed out can be read."""
    config = config_from_file(SCRIPTS / "nightly.toml")
    assert [target.target for target in config.targets] == ["onnxruntime", "rtx:8.6"]
    assert Path(config.models[0].file).is_file()


def test_a_wrong_configuration_starts_nothing(tmp_path: Path) -> None:
    """Exit code 2, and no folder."""
    site = made_site(tmp_path)
    site.config.write_text("outputs = 'out'\n" + GOOD)
    done = site.run("perf", "2026-01-01")
    assert done.returncode == 2
    assert "did you mean 'output'" in done.stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "nightly").exists()
    site.config.write_text(GOOD)
    assert site.run("perf", "../../elsewhere").returncode == 2
