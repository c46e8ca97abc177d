"""The papers' networks as plain modules, their activations and their initial distributions."""

from zeroloss.networks.activations import (
    ACTIVATIONS,
    Abs,
    Activation,
    Cos,
    Elementwise,
    Erf,
    Sin,
    activation_of,
    find_activation,
    hard_tanh,
    leaky_relu,
    softplus,
)
from zeroloss.networks.architecture import SCHEMES, Architecture, Network, train_only, weight_layers
from zeroloss.networks.constants import c_sigma, gradient_gain, sup_curvature, sup_derivative
from zeroloss.networks.conv_residual import conv_resnet
from zeroloss.networks.convolutional import cnn
from zeroloss.networks.dense import fully_connected
from zeroloss.networks.gaussian import gaussian_mean, gaussian_rule
from zeroloss.networks.layers import GaussianConv2d, GaussianLinear, Residual, Scale
from zeroloss.networks.residual import resnet

__all__ = [
    "ACTIVATIONS",
    "SCHEMES",
    "Abs",
    "Activation",
    "Architecture",
    "Cos",
    "Elementwise",
    "Erf",
    "GaussianConv2d",
    "GaussianLinear",
    "Network",
    "Residual",
    "Scale",
    "Sin",
    "activation_of",
    "c_sigma",
    "cnn",
    "conv_resnet",
    "find_activation",
    "fully_connected",
    "gaussian_mean",
    "gaussian_rule",
    "gradient_gain",
    "hard_tanh",
    "leaky_relu",
    "resnet",
    "softplus",
    "sup_curvature",
    "sup_derivative",
    "train_only",
    "weight_layers",
]
