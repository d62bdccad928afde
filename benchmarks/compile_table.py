"""Compile every CUDA kernel for every architecture, without a GPU, and print what each takes.

    PYTHONPATH=. python benchmarks/compile_table.py --json benchmarks/results/compile.json

Registers of a thread, bytes spilled to memory and shared memory of a block, as the compiler reports
them. Exits with status 1 where a kernel spills.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from renderer.cuda import build
from renderer.cuda.layout import DecoderShape, FieldLayout, choose_layout
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


def compiled(nvrtc: Nvrtc, architecture: int, shape: DecoderShape) -> list[dict[str, Any]]:
    """One row for each kernel."""
    rows = []
    for source in sorted(name for name in build.source_files() if name.endswith(".cu")):
        layout = choose_layout(shape, architecture, backward=source == "field_backward.cu")
        log = build.compile_source(nvrtc, source, layout.macros, architecture).log
        for kernel, use in build.kernel_resources(log).items():
            rows.append(
                {
                    "cuda": ".".join(map(str, nvrtc.version)),
                    "architecture": architecture,
                    "kernel": kernel,
                    "registers": use.registers,
                    "spilled_bytes": use.spilled,
                    "shared_bytes": shared_bytes(kernel, use.shared, layout),
                    "tile": layout.tile,
                    "blocks": layout.blocks,
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
    arguments = parser.parse_args()
    shape = DecoderShape(*arguments.decoder) if arguments.decoder else DECODER
    rows: list[dict[str, Any]] = []
    for major in MAJORS:
        try:
            nvrtc = load_nvrtc(major)
        except UserError as error:
            print(f"CUDA {major}: {error}")
            continue
        for architecture in arguments.architectures:
            if architecture in nvrtc.architectures():
                rows += compiled(nvrtc, architecture, shape)
    columns = ("cuda", "architecture", "kernel", "registers", "spilled_bytes", "shared_bytes")
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
