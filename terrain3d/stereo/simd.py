"""Explicit vector types for Numba: fixed-width lanes lowered to portable LLVM vector IR.

LLVM legalises 64 x u8 to one AVX-512, two AVX2 or four SSE/NEON registers, so that one source serves every host and
needs no compiler. Only what the matching kernel uses is here.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

LANES = 64


class Vector(types.Type):
    """``LANES`` unsigned integers of ``bits`` each."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__(f"Vector{LANES}xu{bits}")

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(ir.IntType(self.bits), LANES)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.llvm)


U8, U16, U32 = Vector(8), Vector(16), Vector(32)
_SCALAR = {8: types.uint8, 16: types.uint16, 32: types.uint32}


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _splat(builder: Any, value: Any, kind: Vector) -> Any:
    undefined = ir.Constant(kind.llvm, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _load(kind: Vector) -> Any:
    @intrinsic
    def load(context: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(builder.inttoptr(args[0], kind.llvm.as_pointer()), align=1, typ=kind.llvm)

        return kind(types.uintp), code

    return load


def _store(kind: Vector) -> Any:
    @intrinsic
    def store(context: Any, address: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store(args[1], builder.inttoptr(args[0], kind.llvm.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(types.uintp, kind), code

    return store


def _binary(kind: Vector, operation: str) -> Any:
    """umin through the LLVM intrinsic of that name; add, sub and xor through the instruction."""

    @intrinsic
    def binary(context: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if operation == "umin":
                return _call(builder, f"llvm.umin.v{LANES}i{kind.bits}", kind.llvm, list(args))
            return getattr(builder, operation)(args[0], args[1])

        return kind(kind, kind), code

    return binary


def _broadcast(kind: Vector) -> Any:
    @intrinsic
    def broadcast(context: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _splat(builder, args[0], kind)

        return kind(_SCALAR[kind.bits]), code

    return broadcast


def _minimum(kind: Vector) -> Any:
    @intrinsic
    def minimum(context: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            name = f"llvm.vector.reduce.umin.v{LANES}i{kind.bits}"
            return _call(builder, name, ir.IntType(kind.bits), [args[0]])

        return _SCALAR[kind.bits](kind), code

    return minimum


@intrinsic
def hamming(context: Any, address: Any, word: Any) -> Any:
    """Bits that differ between a u32 word and each of the 64 u32 words at an address: 64 x u8."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = builder.load(builder.inttoptr(args[0], U32.llvm.as_pointer()), align=1, typ=U32.llvm)
        different = builder.xor(words, _splat(builder, args[1], U32))
        return builder.trunc(_call(builder, f"llvm.ctpop.v{LANES}i32", U32.llvm, [different]), U8.llvm)

    return U8(types.uintp, types.uint32), code


@intrinsic
def widen(context: Any, value: Any) -> Any:
    """64 x u8 to 64 x u16."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(args[0], U16.llvm)

    return U16(U8), code


@intrinsic
def tag_with_index(context: Any, value: Any, first: Any) -> Any:
    """64 x u16 to 64 x u32: value in the upper half, first + lane in the lower, so that a minimum is an arg-minimum."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        high = builder.shl(builder.zext(args[0], U32.llvm), ir.Constant(U32.llvm, [16] * LANES))
        lane = ir.Constant(U32.llvm, list(range(LANES)))
        return builder.or_(high, builder.add(lane, _splat(builder, args[1], U32)))

    return U32(U16, types.uint32), code


load8, load16, load32 = _load(U8), _load(U16), _load(U32)
store8, store16, store32 = _store(U8), _store(U16), _store(U32)
add8, sub8, min8 = _binary(U8, "add"), _binary(U8, "sub"), _binary(U8, "umin")
add16, min16, min32 = _binary(U16, "add"), _binary(U16, "umin"), _binary(U32, "umin")
splat8, splat32 = _broadcast(U8), _broadcast(U32)
reduce8, reduce16, reduce32 = _minimum(U8), _minimum(U16), _minimum(U32)
