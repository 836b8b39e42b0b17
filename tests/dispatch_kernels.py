"""Kernels to test the dispatcher with: they copy bytes, so they take and give every dtype."""

from collections.abc import Iterable, Sequence

from functrace.backend import llvm
from functrace.backend.signatures import Argument, Output, Signature

HEAD = """define i64 @{name}(ptr %pointers) {{
entry:
"""

COPY = """  br label %start{k}
start{k}:
  %from_at{k} = getelementptr ptr, ptr %pointers, i64 {source}
  %to_at{k} = getelementptr ptr, ptr %pointers, i64 {target}
  %from{k} = load ptr, ptr %from_at{k}
  %to{k} = load ptr, ptr %to_at{k}
  br label %look{k}
look{k}:
  %i{k} = phi i64 [0, %start{k}], [%next{k}, %byte{k}]
  %more{k} = icmp slt i64 %i{k}, {size}
  br i1 %more{k}, label %byte{k}, label %done{k}
byte{k}:
  %from_byte{k} = getelementptr i8, ptr %from{k}, i64 %i{k}
  %to_byte{k} = getelementptr i8, ptr %to{k}, i64 %i{k}
  %value{k} = load i8, ptr %from_byte{k}
  store i8 %value{k}, ptr %to_byte{k}
  %next{k} = add i64 %i{k}, 1
  br label %look{k}
done{k}:
"""

# Writes to both ends of the workspace; refuses if it is not aligned to 64 bytes.
WORKSPACE = """  %workspace_at = getelementptr ptr, ptr %pointers, i64 {position}
  %workspace = load ptr, ptr %workspace_at
  %last = getelementptr i8, ptr %workspace, i64 {last}
  store i8 1, ptr %workspace
  store i8 2, ptr %last
  %address = ptrtoint ptr %workspace to i64
  %rest = and i64 %address, 63
  %refuse = icmp ne i64 %rest, 0
  %status = zext i1 %refuse to i64
  ret i64 %status
}}
"""


def copying(name: str, signature: Signature, sources: Sequence[int], status: int = 0) -> str:
    """IR of a kernel whose k-th output is a copy of argument `sources[k]`, of the same dtype and size."""
    inputs = len(signature.arguments)
    text = HEAD.format(name=name)
    for k, (source, output) in enumerate(zip(sources, signature.outputs, strict=True)):
        size = output.dtype.itemsize
        for length in output.shape:
            size *= length
        text += COPY.format(k=k, source=source, target=inputs + k, size=size)
    if signature.workspace:
        return text + WORKSPACE.format(position=inputs + len(sources), last=signature.workspace - 1)
    return text + f"  ret i64 {status}\n}}\n"


def load(texts: Iterable[str]) -> llvm.Library:
    target = llvm.target()
    return llvm.load(llvm.compile_ir("\n".join(texts), target, opt=0), target)


def output_like(argument: Argument, scalar: bool) -> Output:
    return Output(argument.dtype, argument.shape, scalar and argument.shape == ())
