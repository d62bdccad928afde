"""Compile, measure and load every kernel as a program's first use does; say how long that took."""

from __future__ import annotations

import argparse
import time

import torch

from renderer.cuda import unavailable_reason
from renderer.cuda.field.layout import DecoderShape
from renderer.cuda.field.selection import layout_for
from renderer.cuda.modules import load_module

SOURCES = ("march", "composite", "plane_step", "field_forward", "field_backward")
# The published decoder, and that of the shipped model.
SHAPES = (DecoderShape(32, 24, 128, 2), DecoderShape(16, 12, 64, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args().device)
    reason = unavailable_reason(device)
    print(torch.__version__, torch.version.cuda, reason or "kernels available")
    if device.type != "cuda":
        return
    if reason:
        raise SystemExit(1)
    torch.zeros(1, device=device)
    # As tensors state theirs: with its number.
    device = torch.device("cuda", torch.cuda.current_device())
    for shape in SHAPES:
        start = time.time()
        for name in (*SOURCES, "decoder_gradients"):
            backward = name in ("field_backward", "decoder_gradients")
            layout = layout_for(shape, device, backward=backward)
            sized = name.startswith(("field", "decoder"))
            load_module(f"{name}.cu", layout.macros if sized else {}, device)
            print(f"{name}: {layout}")
        print(f"first use: {time.time() - start:.1f} s")


if __name__ == "__main__":
    main()
