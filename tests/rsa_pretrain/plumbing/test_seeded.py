import torch

from rsa_pretrain.plumbing.seeded import seeded


def test_the_generator_continues_where_it_was() -> None:
    """Draws of a block follow its seed alone, and those after it do not notice the block."""
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    found = [torch.rand(1)]
    for seed in (3, 3, 4):
        with seeded(seed):
            found.append(torch.rand(1))
    assert found[1] == found[2] != found[3]
    assert torch.equal(torch.cat([found[0], torch.rand(1)]), expected)
