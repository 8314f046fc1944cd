"""A small image tower for CPUs, which open_clip builds by name from a model configuration."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models import register_model
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[b, width_in, h, w] to [b, width, h / stride, w / stride], both float."""
        y = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(y)).add_(self.shortcut(x)))
        return out


class TinyResNet(nn.Module):
    """One block per stage; a stem of stride 2; average and maximum pooling side by side."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        """`num_classes`: width of the output, as timm calls it."""
        super().__init__()
        self.num_features = 2 * widths[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.stages = nn.Sequential(*(Block(a, b, 1 + (i > 0)) for i, (a, b) in enumerate(pairs)))
        self.head = nn.Linear(self.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """float [b, 3, h, w], normalised, to float [b, num_classes]."""
        x = self.stages(self.stem(images)).flatten(2)
        out: Tensor = self.head(torch.cat([x.mean(2), x.amax(2)], dim=1))
        return out


def bdbench_tiny_resnet(
    pretrained: bool = False, num_classes: int = 64, **_: Any
) -> TinyResNet:
    """timm's entry point; what else timm and open_clip pass (pooling, configs) does not apply."""
    del pretrained
    return TinyResNet(num_classes)


def bdbench_mini_resnet(
    pretrained: bool = False, num_classes: int = 128, **_: Any
) -> TinyResNet:
    """The same with four stages, for real images of about 48 px."""
    del pretrained
    return TinyResNet(num_classes, (24, 48, 96, 192))


def register_towers() -> None:
    """Make the towers known to timm; call it before `open_clip.create_model`."""
    for tower in (bdbench_tiny_resnet, bdbench_mini_resnet):
        if not timm.is_model(tower.__name__):
            register_model(tower)
