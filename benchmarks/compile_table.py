"""Compile every CUDA kernel for every architecture, without a GPU, and print what each takes.

    PYTHONPATH=. python benchmarks/compile_table.py --json benchmarks/results/compile.json

Registers of a thread, bytes spilled to memory and shared memory of a block, as the compiler reports
them, for every way the field's kernels may be cut (``groups`` of threads that share weights which
stay; 0: weights are copied layer by layer). Exits with status 1 where a kernel spills.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from renderer.cuda import build
from renderer.cuda.field.layout import (
    DecoderShape,
    FieldLayout,
    candidate_layouts,
    choose_layout,
    variations,
)
from renderer.cuda.toolkit import MAJORS, Nvrtc, load_nvrtc
from runtime.errors import UserError

DECODER = DecoderShape(32, 24, 128, 2)
ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)


def shared_bytes(kernel: str, static: int, layout: FieldLayout) -> int:
    """Shared memory of a block: what the compiler reserves and what the launch asks for."""
    dynamic = {
        "field_forward": layout.forward_bytes,
        "field_density": layout.forward_bytes,
        "field_backward": layout.backward_bytes,
        "decoder_gradients": layout.gradient_bytes,
    }
    return static + dynamic.get(kernel, 0)


def cuts(source: str, architecture: int, shape: DecoderShape, every: bool) -> list[FieldLayout]:
    """How a source's kernels may be cut: the likely best first, and the others if wanted."""
    backward = source == "field_backward.cu"
    chosen = choose_layout(shape, architecture, backward=backward)
    if not every or not source.startswith("field_"):
        return [chosen]
    found = candidate_layouts(shape, architecture, backward=backward)
    if backward:
        # The workspace's size is no matter of the compiler's.
        found += [cut for cut in variations(chosen) if cut.chunk == chosen.chunk]
    return found


def compiled(
    nvrtc: Nvrtc, architecture: int, shape: DecoderShape, every: bool
) -> list[dict[str, Any]]:
    """One row for each kernel and cut."""
    rows = []
    for source in sorted(name for name in build.source_files() if name.endswith(".cu")):
        for layout in cuts(source, architecture, shape, every):
            log = build.compile_source(nvrtc, source, layout.macros, architecture).log
            for kernel, use in build.kernel_resources(log).items():
                rows.append(
                    {
                        "cuda": ".".join(map(str, nvrtc.version)),
                        "architecture": architecture,
                        "kernel": kernel,
                        "tile": layout.tile,
                        "columns": layout.warp_columns,
                        "blocks": layout.blocks,
                        "groups": layout.groups,
                        "scatter": layout.scatter,
                        "registers": use.registers,
                        "spilled_bytes": use.spilled,
                        "shared_bytes": shared_bytes(kernel, use.shared, layout),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the table here")
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES)
    parser.add_argument(
        "--decoder", type=int, nargs=4, default=None, help="channels, color_channels, hidden, freq."
    )
    parser.add_argument("--cuda", type=int, nargs="+", default=MAJORS, help="compilers")
    parser.add_argument("--chosen", action="store_true", help="the likely best cut alone")
    arguments = parser.parse_args()
    shape = DecoderShape(*arguments.decoder) if arguments.decoder else DECODER
    rows: list[dict[str, Any]] = []
    for major in arguments.cuda:
        try:
            nvrtc = load_nvrtc(major)
        except UserError as error:
            print(f"CUDA {major}: {error}")
            continue
        for architecture in arguments.architectures:
            if architecture in nvrtc.architectures():
                rows += compiled(nvrtc, architecture, shape, not arguments.chosen)
    columns = list(rows[0]) if rows else []
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"decoder": vars(shape), "kernels": rows}, file, indent=1)
            file.write("\n")
    spilling = [row for row in rows if row["spilled_bytes"]]
    if spilling or not rows:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
