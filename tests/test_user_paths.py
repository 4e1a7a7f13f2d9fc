"""``~`` in every path of the three command lines."""

import argparse
import importlib
import json
import pkgutil
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError, create_model

import detection
import detection.__main__
import rsa_eval
import rsa_eval.__main__
import rsa_pretrain
import rsa_pretrain.__main__
from detection.recipe.recipe import Recipe
from rsa_eval.campaigns.settings import SuiteConfig
from rsa_eval.commands.subjects import split_words
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.data.shards.locate import list_shards
from rsa_pretrain.plumbing.command_line import Parser
from rsa_pretrain.plumbing.config.files import Section, load_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import expand_user

MAINS = [rsa_pretrain.__main__, rsa_eval.__main__, detection.__main__]
MINIMAL = """
data: {name: digits, image_size: 32}
backbone: {arch: resnet18, stem: cifar}
method: {name: rsa, hidden_dim: 8, output_dim: 4, beta_base: 0.3}
optimizer: {base_lr: 0.1, weight_decay: 1e-4}
training: {epochs: 4, global_batch_size: 8}
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The home folder of the user."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


class ParserBuiltError(Exception):
    """Carries a command's parser out of its ``main``."""


def arguments_of(parser):
    """Every argument of a parser and of its commands, with the parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from arguments_of(command)
        else:
            yield parser, action


def sections():
    """Every class of settings of the three packages."""
    for package in (rsa_pretrain, rsa_eval, detection):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "detectron2" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found = list(Section.__subclasses__())
    for section in found:  # grows with the subclasses' own
        found += section.__subclasses__()
    return found


@pytest.mark.parametrize("module", MAINS, ids=lambda module: module.__name__)
def test_every_argument_that_is_a_path_expands(module, monkeypatch, home):
    """Of each command's arguments, those that give a path take ``~`` for the home folder."""

    def stop(parser, argv):
        raise ParserBuiltError(parser)

    monkeypatch.setattr(Parser, "parse_args", stop)
    found = []
    for command in module.PROGRAM.commands:
        with pytest.raises(ParserBuiltError) as caught:
            module.main([command.name])
        for parser, action in arguments_of(caught.value.args[0]):
            if action.type is Path:
                found.append(parser._get_value(action, "~/x"))
            elif action.type is None:
                # Values that stay text are not paths.
                words = f"{action.metavar} {action.dest}"
                assert not re.search("FILE|FOLDER|DIR|RUN|CHECKPOINT|YAML|OUT", words), words
    assert found
    assert set(found) == {home / "x"}


@pytest.mark.filterwarnings("ignore:Field name")
def test_every_setting_that_is_a_path_expands(home):
    """Each field with a path in its type, alone in a section, takes ``~`` for the home folder."""
    found = []
    for section in sections():
        for name, field in section.model_fields.items():
            if field.annotation is Path or Path in get_args(field.annotation):
                alone = create_model("Alone", __base__=Section, value=(field.annotation, ...))
                found.append(alone.model_validate({"value": "~/x"}).value)
            else:
                assert "Path" not in re.findall(r"\w+", repr(field.annotation)), (section, name)
    assert len(found) >= 10
    assert set(found) == {home / "x"}


def test_overrides_and_base_files_expand(home, tmp_path):
    """``output_dir=~/runs`` and ``base: ~/base.yaml`` mean the home folder."""
    (home / "base.yaml").write_text(MINIMAL)
    (tmp_path / "run.yaml").write_text("base: ~/base.yaml\n")
    config = load_config(PretrainConfig, tmp_path / "run.yaml", ["output_dir=~/runs/x"])
    assert config.output_dir == home / "runs" / "x"


def test_settings_of_the_other_packages_expand(home, tmp_path):
    """A suite's cache and the files of its evaluations; a recipe's folders."""
    tree = {
        "data": {"name": "imagefolder", "root": "~/photos", "image_size": 32, "train_dir": "~/t"},
        "cache_dir": "~/cache",
        "evaluations": {"knn": {"config": "~/knn.yaml"}},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(tree))
    suite = load_config(SuiteConfig, tmp_path / "suite.yaml")
    assert (suite.cache_dir, suite.data.root) == (home / "cache", home / "photos")
    assert suite.data.train_dir == str(home / "t")
    assert suite.evaluations["knn"].config == home / "knn.yaml"
    keys = ("train_annotations", "train_images", "test_annotations", "test_images")
    words = [f"data.{key}=~/{key}" for key in keys]
    words += ["data.name=x", "name=x", "output_dir=~/out"]
    recipe = load_config(Recipe, None, words)
    assert [getattr(recipe.data, key) for key in keys] == [home / key for key in keys]
    assert recipe.output_dir == home / "out"


@pytest.mark.parametrize("pattern", ["~/shards/{a,b}.tar", "{~/shards/a,~/shards/b}.tar"])
def test_shard_patterns_expand(home, pattern):
    """Each local pattern, before or after its braces are; a URL and a command stay."""
    pytest.importorskip("braceexpand")
    (home / "shards").mkdir()
    for name in "ab":
        (home / "shards" / f"{name}.tar").touch()
    config = DataConfig(name="webdataset", image_size=32, shards=pattern)
    assert list_shards(config, "train") == [str(home / "shards" / f"{name}.tar") for name in "ab"]
    config = DataConfig(name="webdataset", image_size=32, shards=("http://x/~u/a.tar", "pipe:~"))
    assert list_shards(config, "train") == ["http://x/~u/a.tar", "pipe:~"]


def test_words_that_are_paths_expand(home):
    """A checkpoint among settings, as evaluations take it."""
    assert split_words(["~/run", "data.root=~/x"]) == ([home / "run"], ["data.root=~/x"])


def test_a_run_lands_in_the_home_folder(home, tmp_path, monkeypatch, tiny_tree):
    """The whole command: config, images and run folder below ``~``; no folder ``~`` is made."""
    monkeypatch.chdir(tmp_path)
    (home / "run.yaml").write_text(json.dumps(tiny_tree))
    assert rsa_pretrain.__main__.main(["preview", "~/run.yaml", "~/views.png"]) == 0
    assert (home / "views.png").exists()
    assert not (tmp_path / "~").exists()


def test_an_unknown_home_is_an_error(capsys):
    """``~NAME`` without a user NAME is refused, with what to write for a file of that name."""
    message = r"no home folder '~no-such-user'.*'\./~no-such-user'"
    with pytest.raises(UserError, match=message):
        expand_user("~no-such-user/x")
    with pytest.raises(ValidationError, match=message):
        DataConfig(name="imagefolder", root="~no-such-user/x", image_size=32)
    assert rsa_pretrain.__main__.main(["inspect", "~no-such-user/x"]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("text", ["a~", "./~", "/x/~/y", "", "a/~b"])
def test_other_tildes_are_names(text):
    """Only the first letter counts."""
    assert expand_user(text) == text
