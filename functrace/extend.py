"""What a user-defined primitive is made of: the record and the constructors that the library's own are made with.

    >>> import numpy as np
    >>> import functrace
    >>> from functrace.extend import elementwise
    >>> cubed = elementwise("cubed_example", lambda x: x * x * x, lambda x, out: 3.0 * x * x)
    >>> functrace.hessian(lambda v: cubed(v).sum())(np.array([1.0, 2.0]))
    array([[ 6.,  0.],
           [ 0., 12.]])

- `elementwise`, `linear`, `bilinear`: constructors that derive all rules from the mathematics of the family.
- `Primitive`: the record itself, for everything else; its rules are described in `functrace.core.primitive`.
- `ShapedArray`, `aval_of`: types of values, which `abstract_eval` takes and gives.
- `is_linear`: which operands of a transpose rule are linear. `Masked`: cotangents with dead elements.
- `Kink`: where a primitive is not differentiable, for `functrace.inspect.kinks`.
- `Series`, `coefficient_of`, `product_coefficient`: for `taylor` rules.
- `broadcast`, `reduce_sum`, `reshape`, `zeros`, `zero_of`: what rules are most often written in, beside NumPy.
- `kernel_address`: a Numba kernel as a C function, for code that calls it by address.

A rule may use NumPy functions and operators on its values: they may be arrays or tracers, and both understand them.
`functrace.testing.check_primitive` checks every rule, `functrace.testing.check_rule` a function that uses it.
"""

from functrace.backend.kernels.native import NativeKernel as NativeKernel
from functrace.backend.kernels.native import kernel_address as kernel_address
from functrace.core.primitive import Kink as Kink
from functrace.core.primitive import Masked as Masked
from functrace.core.primitive import Primitive as Primitive
from functrace.core.primitive import is_linear as is_linear
from functrace.core.primitive import primitives as primitives
from functrace.core.series import Series as Series
from functrace.core.series import coefficient_of as coefficient_of
from functrace.core.series import product_coefficient as product_coefficient
from functrace.core.types import ShapedArray as ShapedArray
from functrace.core.types import aval_of as aval_of
from functrace.primitives.bilinear import bilinear as bilinear
from functrace.primitives.elementwise import zero_of as zero_of
from functrace.primitives.families import broadcast as broadcast
from functrace.primitives.families import elementwise as elementwise
from functrace.primitives.families import reduce_sum as reduce_sum
from functrace.primitives.families import reshape as reshape
from functrace.primitives.linear import linear as linear
from functrace.primitives.shape import zeros as zeros
