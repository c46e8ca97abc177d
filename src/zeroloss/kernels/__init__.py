"""Infinite-width kernels: Gaussian expectations, the module-to-recursion walk, and the callable on top."""

from zeroloss.kernels.initial import measured_variances
from zeroloss.kernels.layer_kernels import layer_kernels, trained_layers
from zeroloss.kernels.limit import LimitKernel, limit_kernel
from zeroloss.kernels.printed import printed_conv_resnet, printed_resnet
from zeroloss.kernels.replicates import needs_particles

__all__ = [
    "LimitKernel",
    "layer_kernels",
    "limit_kernel",
    "measured_variances",
    "needs_particles",
    "printed_conv_resnet",
    "printed_resnet",
    "trained_layers",
]
