import sys
from importlib import import_module
from typing import get_args

import pytest

from detection.engines import ENGINES, load_engine
from detection.recipe.recipe import EngineName
from rsa_pretrain.plumbing.errors import UserError


def test_every_engine_of_a_recipe_has_a_module() -> None:
    """The recipe's choices and the table agree, and torchvision's offers all that is asked."""
    assert set(ENGINES) == set(get_args(EngineName))
    engine = load_engine("torchvision")
    for name in ("train", "predict", "save_weights"):
        assert callable(getattr(engine, name))
    assert all(isinstance(line, str) for line in engine.DIFFERENCES_FROM_DETECTRON2)


def test_missing_detectron2_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where to get detectron2, and what works without it."""
    monkeypatch.setattr("detection.engines.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"github\.com/facebookresearch/detectron2.*=torchvision"):
        load_engine("detectron2")


def test_broken_library_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose library cannot be imported is one error, not a traceback."""
    for name in [name for name in sys.modules if name.startswith(ENGINES["torchvision"])]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    with pytest.raises(UserError, match="engine torchvision cannot be imported"):
        load_engine("torchvision")
    monkeypatch.undo()
    import_module(ENGINES["torchvision"])
