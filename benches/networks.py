"""The perceptron and the wide residual networks of tlr_models, in PyTorch."""

from torch import nn


def perceptron():
    return nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 10))


def conv(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class WideBlock(nn.Module):
    """A block of tlr_models::resnet's wide networks: the second convolution strides."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.path = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            conv(inputs, outputs, 3),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            conv(outputs, outputs, 3, stride),
        )
        same = (inputs, stride) == (outputs, 1)
        self.short = nn.Identity() if same else conv(inputs, outputs, 1, stride)

    def forward(self, x):
        return self.short(x) + self.path(x)


def wide(width):
    """WRN-16-`width`."""
    layers, inputs = [conv(3, 16, 3)], 16
    for outputs, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        layers += [WideBlock(inputs, outputs, stride), WideBlock(outputs, outputs, 1)]
        inputs = outputs
    end = [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *end, nn.Linear(inputs, 10))
