from __future__ import annotations

import pytest
import torch

from bdbench.data.paste import blocks, paste, room
from bdbench.errors import BdbenchError


def naive_paste(images, patches, top, left):
    """Pixel by pixel."""
    out = [[[list(row) for row in channel] for channel in image] for image in images.tolist()]
    for i, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        for c in range(patches.shape[1]):
            for dy in range(patches.shape[2]):
                for dx in range(patches.shape[3]):
                    out[i][c][y + dy][x + dx] = float(patches[i, c, dy, dx])
    return torch.tensor(out)


@pytest.mark.parametrize(("height", "width"), [(3, 3), (1, 4), (8, 10)])
def test_paste_agrees_with_a_pixel_loop(height, width):
    g = torch.Generator().manual_seed(height)
    images = torch.rand(5, 3, 8, 10, generator=g)
    patches = torch.rand(5, 3, height, width, generator=g)
    top = torch.randint(0, 8 - height + 1, (5,), generator=g)
    left = torch.randint(0, 10 - width + 1, (5,), generator=g)
    before = images.clone()
    assert torch.equal(paste(images, patches, top, left), naive_paste(images, patches, top, left))
    assert torch.equal(images, before)


def test_one_patch_serves_all_images():
    images, patch = torch.zeros(4, 3, 6, 6), torch.rand(3, 2, 2)
    top, left = torch.tensor([0, 1, 2, 4]), torch.tensor([4, 3, 2, 0])
    expected = naive_paste(images, patch.expand(4, 3, 2, 2), top, left)
    assert torch.equal(paste(images, patch, top, left), expected)


def test_memory_layout_does_not_matter():
    images, patch = torch.rand(4, 3, 6, 6), torch.rand(3, 2, 2)
    place = torch.arange(4)
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(paste(last, patch, place, place), paste(images, patch, place, place))


def test_a_patch_beyond_the_edge_is_an_error_and_does_not_wrap_around():
    with pytest.raises(IndexError):
        paste(torch.zeros(1, 3, 4, 4), torch.ones(3, 2, 2), torch.tensor([0]), torch.tensor([3]))


@pytest.mark.parametrize(("args", "last"), [((32, 8), 24), ((32, 8, 3), 21), ((16, 16), 0)])
def test_room(args, last):
    assert room(*args) == last


@pytest.mark.parametrize("args", [(8, 9), (8, 8, 1)])
def test_no_room(args):
    with pytest.raises(BdbenchError, match=r"a patch of `\d` px .* does not fit .* `8` px") as e:
        room(*args)
    assert "--set attack.size=2" in e.value.hint


def test_noise_takes_its_levels_equally_often():
    noise = ((torch.arange(12000) + 0.5) / 12000).view(1, -1)
    for levels in (2, 3, 256):
        values, counts = blocks(noise, levels, 1, 1, 12000).unique(return_counts=True)
        assert torch.allclose(values, torch.linspace(0, 1, levels), atol=1e-6)
        assert counts.max() - counts.min() <= 1


def test_blocks_are_squares_cut_off_at_the_edge():
    noise = torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    drawn = [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    assert blocks(noise, 2, 2, 3, 3).tolist() == drawn
