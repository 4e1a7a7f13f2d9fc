from pathlib import Path
from typing import Any

import pytest

from detection.exchange.anchors import anchor_tree, read_anchors
from detection.recipe.architecture import DEFAULT_ANCHORS, Anchors, RegionMaps
from rsa_pretrain.plumbing.errors import UserError

SIZES = [[8], [16], [32.5], [64], [128]]
PATH = Path("config.yaml")


def _settings(sizes: Any, ratios: Any) -> dict[str, Any]:
    return {"MODEL": {"ANCHOR_GENERATOR": {"SIZES": sizes, "ASPECT_RATIOS": ratios}}}


@pytest.mark.parametrize("features", ["FPN", "C4"])
@pytest.mark.parametrize("anchors", [DEFAULT_ANCHORS, Anchors((8, 16, 32.5, 64, 128), (4, 1))])
def test_keys_give_the_anchors_back(anchors: Anchors, features: RegionMaps) -> None:
    """Anchors written for detectron2 are read back unchanged."""
    settings = {"MODEL": {"ANCHOR_GENERATOR": anchor_tree(anchors, features)}}
    assert read_anchors(settings, PATH, features) == anchors


def test_sizes_of_one_map() -> None:
    """On C4 any number of sizes share the map, bare or nested; sizes by level are refused."""
    for sizes in ([[32, 64]], [32, 64]):
        assert read_anchors(_settings(sizes, [[1.0]]), PATH, "C4") == ((32, 64), (1.0,))
    for sizes in (SIZES, None, [[]], ["32"]):
        with pytest.raises(UserError, match=r"SIZES .*; expected the sizes on one map|at least 1"):
            read_anchors(_settings(sizes, [[1.0]]), PATH, "C4")


@pytest.mark.parametrize("ratios", [[0.5, 2], [[0.5, 2]], [[0.5, 2]] * 5, [(0.5, 2)]])
def test_ratios_of_all_levels_can_be_written_in_several_ways(ratios: Any) -> None:
    """One list serves all levels, alone or in a list, as detectron2 reads it."""
    assert read_anchors(_settings(SIZES, ratios), PATH, "FPN") == ((8, 16, 32.5, 64, 128), (0.5, 2))


@pytest.mark.parametrize(
    ("sizes", "ratios", "message"),
    [
        (
            None,
            [[1.0]],
            r"'config.yaml' has MODEL\.\S+\.SIZES None; expected one size for each of 5",
        ),
        ([], [[1.0]], r"SIZES \[\]; expected"),
        ([[32, 64, 128, 256, 512]], [[1.0]], r"SIZES \[\[32, 64, 128, 256, 512\]\]; expected one"),
        ([[32], [64], [128]], [[1.0]], r"SIZES \[\[32\], \[64\], \[128\]\]; expected one size"),
        ([[8], [16], [32], [64], 128], [[1.0]], "SIZES .*; expected one size"),
        ([[8], [16], [32], [64], ["128"]], [[1.0]], "SIZES .*; expected one size"),
        ([[64], [32], [128], [256], [512]], [[1.0]], "MODEL.ANCHOR_GENERATOR: .* must increase"),
        (SIZES, None, "ASPECT_RATIOS None; expected ratios that hold for every size"),
        (SIZES, [[1.0], [1.0], [1.0], [1.0], [2.0]], "ASPECT_RATIOS .*; expected ratios"),
        (SIZES, [[1.0], [1.0]], "ASPECT_RATIOS .*; expected ratios"),
        (SIZES, [[True]], r"ASPECT_RATIOS \[\[True\]\]; expected ratios"),
        (SIZES, [[]], "MODEL.ANCHOR_GENERATOR: .* at least 1 item"),
        (SIZES, [[-1.0]], "MODEL.ANCHOR_GENERATOR: .* greater than 0"),
    ],
)
def test_anchors_that_no_engine_takes_are_refused(sizes: Any, ratios: Any, message: str) -> None:
    """Several sizes per level, shapes of a single level and invalid anchors are named."""
    with pytest.raises(UserError, match=message):
        read_anchors(_settings(sizes, ratios), PATH, "FPN")
