"""FLOPs of a traced program: its matrix products and convolutions, a scanned body times its length.

Counted on shapes alone. The compiler's own count sees a scanned body once. Elementwise work is left out, as in every
published utilisation. Convolutions count as such, in whatever form they run.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from osjax.ops.conv import as_native
from osjax.types import NamedTree


def of_program(function: Callable[..., Any], *args: Any) -> int:
    """Multiplications and additions of `function(*args)`; args may be shapes. ValueError for loops of unknown length.

    Kernels that are no matrix products to a tracer (cuDNN, Pallas) count as nothing: trace the dense form of them.
    """
    with as_native():
        return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        return _matmul(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    inside = [_count(jaxpr) for jaxpr in _bodies(equation.params)]
    if name == "while" and any(inside):
        raise ValueError("a while loop has no known length: count its body by itself")
    if name == "cond":
        return max(inside)
    return sum(inside) * (equation.params["length"] if name == "scan" else 1)


def _bodies(params: NamedTree) -> Iterator[Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part


def _matmul(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    _, of_one_group, *spatial = equation.params["dimension_numbers"].rhs_spec
    kernel = equation.invars[1].aval.shape
    taps = math.prod(kernel[axis] for axis in spatial)
    return 2 * math.prod(equation.outvars[0].aval.shape) * taps * kernel[of_one_group]
