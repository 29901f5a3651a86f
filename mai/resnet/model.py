"""The CNN of the research note, to the letter; it has no residual connections, `resnet` is the name it came with.

    views uint8 (B, 200, 200, 3), read as 0..1
      -> [conv 3x3 pad 1 -> max pool 2 -> ReLU] x 3, 16, 32, 64 channels -> (B, 64, 25, 25) = 40,000
      -> 120 -> ReLU -> 30 -> ReLU -> logit (B,)                                       4,827,365 parameters

The note names no activation between 30 and 1; the ReLU there is our reading.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mai.resnet.quick import features, is_quick

SIZE_PX = 200


class ResNet(nn.Module):
    """See the head of this module. Loss: BCEWithLogitsLoss; optimizer: RMSprop; sigmoid of the logit: 1 synthetic."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(40_000, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 30),
            nn.ReLU(inplace=True),
            nn.Linear(30, 1),
        )

    def forward(self, views: Tensor) -> Tensor:
        """uint8 RGB (B, 200, 200, 3) 0..255 -> logit (B,), > 0 leans synthetic."""
        convolutions = [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
        if self.training and is_quick(convolutions, views):  # the same numbers and gradients, sooner
            x = features(convolutions, views)
        else:
            x = self.features(views.permute(0, 3, 1, 2).float() / 255)
        logits: Tensor = self.classifier(torch.flatten(x, 1))[:, 0]
        return logits
