"""Vectors of 4 and 8 numbers in compiled kernels, for loops too short to vectorise by themselves.

A compiler vectorises loops over dozens of numbers; a triplane's 4, 12 or 16 channels would be
computed one by one. In a kernel, ``load8(flat, i)`` takes eight numbers of a one-dimensional
contiguous fp32 array, ``store8(flat, i, x)`` puts them back; ``+`` and ``*`` work on them and on
``spread8(number)``. The same with 4. Nothing checks bounds.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import typing
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import infer_global
from numba.extending import intrinsic, models, register_model

from renderer.cpu.kernels.jit import kernel

_FAST = ("contract", "reassoc", "nsz", "arcp")
_WORD = ir.IntType(32)


class Lanes(types.Type):
    """``count`` fp32 numbers in one register."""

    def __init__(self, count: int):
        self.count = count
        super().__init__(f"float32x{count}")


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(ir.FloatType(), kind.count))


def _operator(symbol, build) -> None:
    @infer_global(symbol)
    class _Typing(typing.templates.ConcreteTemplate):
        cases = [typing.signature(kind, kind, kind) for kind in (_FOUR, _EIGHT)]

    for kind in (_FOUR, _EIGHT):

        @lower_builtin(symbol, kind, kind)
        def lower(context, builder, signature, arguments):
            return build(builder, *arguments)


_FOUR, _EIGHT = Lanes(4), Lanes(8)
_operator(operator.add, lambda builder, a, b: builder.fadd(a, b, flags=_FAST))
_operator(operator.sub, lambda builder, a, b: builder.fsub(a, b, flags=_FAST))
_operator(operator.mul, lambda builder, a, b: builder.fmul(a, b, flags=_FAST))


def _place(context, builder, kind, array, index, lanes):
    """Pointer to ``lanes`` numbers of ``array`` from ``index`` on."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(ir.FloatType(), lanes.count)
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _make(lanes: Lanes):
    """Load, store and spread for one width."""

    @intrinsic
    def load(typingctx, flat, index):
        def generate(context, builder, signature, arguments):
            array, at = arguments
            value = builder.load(_place(context, builder, signature.args[0], array, at, lanes))
            value.align = 4
            return value

        return lanes(flat, types.intp), generate

    @intrinsic
    def store(typingctx, flat, index, values):
        def generate(context, builder, signature, arguments):
            array, at, vector = arguments
            done = builder.store(
                vector, _place(context, builder, signature.args[0], array, at, lanes)
            )
            done.align = 4
            return context.get_dummy_value()

        return types.void(flat, types.intp, lanes), generate

    @intrinsic
    def spread(typingctx, value):
        def generate(context, builder, signature, arguments):
            vector = ir.VectorType(ir.FloatType(), lanes.count)
            one = builder.insert_element(
                ir.Constant(vector, ir.Undefined), arguments[0], ir.Constant(_WORD, 0)
            )
            first = ir.Constant(ir.VectorType(_WORD, lanes.count), [0] * lanes.count)
            return builder.shuffle_vector(one, one, first)

        return lanes(types.float32), generate

    return load, store, spread


load4, store4, spread4 = _make(_FOUR)
load8, store8, spread8 = _make(_EIGHT)


@kernel
def copy(source, i, target, j, count):
    """``target[j:j + count] ← source[i:i + count]``, both one-dimensional."""
    c = 0
    while c + 8 <= count:
        store8(target, j + c, load8(source, i + c))
        c += 8
    if c + 4 <= count:
        store4(target, j + c, load4(source, i + c))
        c += 4
    for k in range(c, count):
        target[j + k] = source[i + k]
