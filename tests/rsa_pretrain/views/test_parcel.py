from typing import NamedTuple

import pytest
import torch

from rsa_pretrain.views.parcel import Parcel, packed, unpacked

CPU = torch.device("cpu")


class Content(NamedTuple):
    """Tensors of several types, one empty, one strided, beside other things."""

    numbers: torch.Tensor
    nested: list[dict[str, torch.Tensor]]
    flags: torch.Tensor
    rows: slice
    nothing: None


def example():
    """Content whose parts do not fit each other's alignment."""
    return Content(
        torch.arange(5),
        [{"a": torch.rand(3, 7).T, "b": torch.empty(0, dtype=torch.int64)}, {"c": torch.rand(())}],
        torch.tensor([True, False, True]),
        slice(2, 4),
        None,
    )


def tensors_of(content):
    """The content's tensors."""
    return [content.numbers, *(x for part in content.nested for x in part.values()), content.flags]


def assert_same(content, other):
    """Values, types and shapes agree, and what is no tensor."""
    assert (content.rows, content.nothing) == (other.rows, other.nothing)
    assert [list(part) for part in content.nested] == [list(part) for part in other.nested]
    for one, another in zip(tensors_of(content), tensors_of(other), strict=True):
        assert one.dtype == another.dtype
        assert torch.equal(one, another)


def test_one_copy_carries_everything():
    """After packing, the buffer alone determines the tensors."""
    content = example()
    inside, buffer = packed(content, pinned=False)
    assert_same(inside, content)
    copy = buffer.clone()
    buffer.zero_()
    there = unpacked(inside, copy)
    assert_same(there, content)
    place = copy.untyped_storage().data_ptr()
    assert all(x.untyped_storage().data_ptr() == place for x in tensors_of(there))


def test_tensors_are_aligned():
    """Each begins at a multiple of 16 bytes, and none overlap."""
    inside, buffer = packed(example(), pinned=False)
    filled = [x for x in tensors_of(inside) if x.numel()]
    starts = [x.data_ptr() - buffer.data_ptr() for x in filled]
    assert all(start % 16 == 0 for start in starts)
    ends = [start + x.nbytes for start, x in zip(starts, filled, strict=True)]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert ends[-1] <= len(buffer)


def test_nothing_is_packed_for_the_cpu():
    """The tensors are the ones given."""
    content = example()
    assert Parcel(content, CPU).unpack() is content


def test_other_devices_get_all_tensors():
    """On the meta device, which has no values, types and shapes are right."""
    content = example()
    there = Parcel(content, torch.device("meta")).unpack()
    for one, another in zip(tensors_of(there), tensors_of(content), strict=True):
        assert one.device.type == "meta"
        assert (one.dtype, one.shape) == (another.dtype, another.shape)


@pytest.mark.gpu
def test_a_gpu_gets_all_values():
    """From pinned memory, without a wait."""
    content = example()
    parcel = Parcel(content, torch.device("cuda", torch.cuda.current_device()))
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = parcel.unpack()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, another in zip(tensors_of(there), tensors_of(content), strict=True):
        assert one.is_cuda
        assert torch.equal(one.cpu(), another)
