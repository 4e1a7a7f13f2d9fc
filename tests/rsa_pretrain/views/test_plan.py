import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from rsa_pretrain.views import blur, colours
from rsa_pretrain.views.batch import BatchedViews
from rsa_pretrain.views.draws import draw_views
from rsa_pretrain.views.one_image import VIEW_NAMES
from rsa_pretrain.views.parcel import packed, unpacked
from rsa_pretrain.views.plan import plan_colours
from rsa_pretrain.views.settings import ViewsConfig

COUNT, SIZE = 300, 32
# A GPU answers them by making the host wait.
ANSWERS = {
    *("_local_scalar_dense", "equal", "is_nonzero", "item", "masked_select", "nonzero"),
    *("nonzero_static", "unique_dim", "_unique2"),
}


class Operations(TorchDispatchMode):
    """Notes the operations in its block."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run one, and note it with its arguments."""
        kwargs = kwargs or {}
        self.found.append((operation._schema.name.removeprefix("aten::"), args, kwargs))
        return operation(*args, **kwargs)

    @property
    def names(self):
        """Names of the operations."""
        return [name for name, *_ in self.found]

    def copies_between_devices(self):
        """Operations that move a tensor of more than a number to another device."""
        return [
            (name, args, kwargs)
            for name, args, kwargs in self.found
            if name in ("_to_copy", "copy_")
            and kwargs.get("device", args[-1].device if name == "copy_" else args[0].device)
            != args[0].device
        ]


@pytest.fixture(autouse=True)
def _no_constants_are_kept():
    """Constants of devices that are not real must not be used again."""
    kept = (blur._taps, colours._hexagon)
    yield
    for function in kept:
        function.cache_clear()


def draws_of(count=COUNT, **aggressive):
    """Parameters of four views of the first images."""
    sides = np.full(count, SIZE)
    config = ViewsConfig(aggressive=aggressive)
    names = VIEW_NAMES["multi_stage"]
    return draw_views(names, config, 0, np.zeros(count), np.arange(count), sides, sides)


def maker():
    """Makes four views."""
    statistics = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    return BatchedViews("multi_stage", ViewsConfig(), SIZE, *statistics)


@pytest.fixture
def images():
    """Random images."""
    return torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), dtype=torch.uint8)


def planned(views, draws):
    """Plans of images and of crops as a GPU has them, in one part, packed."""
    gpu = torch.device("cuda")
    plans = [views.plan_images(draws, gpu), views.plan_crops(draws, gpu)]
    assert [len(plan) for plan in plans] == [1, 1]
    return packed(plans, pinned=False)


def made(views, plans, images):
    """Views by both plans."""
    crops = {"": images, "'": images}
    return views.of_images(images, plans[0]) + views.of_crops(crops, plans[1])


def test_a_packed_plan_gives_the_same_views(images):
    """Bitwise those made part by part from draws."""
    views, draws = maker(), draws_of()
    plans, buffer = planned(views, draws)
    found = made(views, unpacked(plans, buffer.clone()), images)
    expected = views.from_images(images, draws)
    expected += views.from_crops({"": images, "'": images}, draws)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_device_is_asked_nothing(images):
    """Once it has its constants, its share has no operation whose result the host reads."""
    views = maker()
    plans, buffer = planned(views, draws_of())
    made(views, unpacked(plans, buffer), images)
    with Operations() as operations:
        made(views, unpacked(plans, buffer), images)
    assert len(operations.names) > 100
    assert not ANSWERS & set(operations.names)


def test_planning_would_be_noticed():
    """The host's share has such operations, and they are seen."""
    with Operations() as operations:
        plan_colours(draws_of().colours[""])
    assert {"_local_scalar_dense", "nonzero"} <= ANSWERS & set(operations.names)


def test_the_device_gets_one_copy(images):
    """On a pretended GPU all tensors are on it, and once constants are there nothing follows."""
    views, draws = maker(), draws_of()
    plans, buffer = planned(views, draws)
    with FakeTensorMode(allow_non_fake_inputs=True), Operations() as operations:
        on_gpu = torch.empty_like(images, device="cuda:0")
        made(views, unpacked(plans, buffer.to("cuda:0")), on_gpu)
        assert operations.copies_between_devices()
        operations.found.clear()
        found = made(views, unpacked(plans, buffer.to("cuda:0")), on_gpu)
        copied = operations.copies_between_devices()
    assert [view.device.type for view in found] == ["cuda"] * 8
    assert [args[0].shape for _, args, _ in copied] == [buffer.shape]
    assert not ANSWERS & set(operations.names)


@pytest.mark.parametrize("probability", [0, 1])
def test_plans_of_none_and_of_all(probability):
    """They count what is drawn."""
    names = ("jitter_probability", "grayscale_probability", "blur_probability")
    plan = plan_colours(draws_of(**dict.fromkeys(names, probability)).colours[""])
    number = COUNT * probability
    assert plan.num_jittered == number
    assert plan.blends.shape == (3, 3, number)
    sizes = [len(x) for x in (plan.hue, plan.gray, plan.blurred, plan.blur_sigma)]
    assert sizes == [number] * 4


def test_images_are_planned_in_their_drawn_order():
    """Each jittered image's blends, before and after its hue, are those that were drawn."""
    draws = draws_of().colours[""]
    plan = plan_colours(draws)
    assert plan.nums_before_hue == sorted(plan.nums_before_hue, reverse=True)
    assert torch.equal(plan.order[plan.back], torch.arange(COUNT))
    assert draws.jitter[plan.order[: plan.num_jittered]].all()
    assert not draws.jitter[plan.order[plan.num_jittered :]].any()
    factors = (draws.brightness, draws.contrast, draws.saturation)
    for place, image in enumerate(plan.order[: plan.num_jittered].tolist()):
        drawn = draws.order[image].tolist()
        before = [place < number for number in plan.nums_before_hue]
        assert before == [blend < drawn.index(3) for blend in range(3)]
        for blend, operation in enumerate(kind for kind in drawn if kind != 3):
            factor, is_contrast, is_saturation = plan.blends[blend, :, place].tolist()
            assert factor == factors[operation][image].item()
            assert [is_contrast, is_saturation] == [operation == 1, operation == 2]
        assert plan.hue[place] == draws.hue[image]
