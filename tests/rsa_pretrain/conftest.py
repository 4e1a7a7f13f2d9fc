"""Fixtures of the pretraining tests."""

import importlib.util
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="session")
def algorithm1():
    """The slow rewrite of Algorithm 1."""
    spec = importlib.util.spec_from_file_location("rsa_algorithm1", REFERENCE / "rsa_algorithm1.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
