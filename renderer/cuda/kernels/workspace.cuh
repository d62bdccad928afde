// What the backward pass leaves for the decoder's gradients: each layer's input and the gradient of
// each layer's output, half precision, one row per sample. Writing them out and summing products
// afterwards (decoder_gradients.cu) beats adding every tile's 61,440 products to global memory.
#pragma once
#include "layout.cuh"

// Layer inputs.
constexpr int IN_DENSITY = 0;
constexpr int IN_COLOR = IN_DENSITY + DENSITY_IN;
constexpr int IN_GEOMETRY = IN_COLOR + COLOR_IN;
constexpr int IN_HIDDEN = IN_GEOMETRY + HIDDEN;
constexpr int IN_OUT = IN_HIDDEN + HIDDEN;
constexpr int INPUTS = IN_OUT + HIDDEN;

// Gradients of layer outputs; color and head are neighbours, as the geometry layer feeds both.
constexpr int GRAD_DENSITY = 0;
constexpr int GRAD_COLOR = GRAD_DENSITY + HIDDEN;
constexpr int GRAD_HEAD = GRAD_COLOR + HIDDEN;
constexpr int GRAD_HIDDEN = GRAD_HEAD + HEAD;
constexpr int GRADIENTS = GRAD_HIDDEN + HIDDEN;

static_assert(INPUTS == EXPECTED_INPUTS, "layout.py disagrees with workspace.cuh");
static_assert(GRADIENTS == EXPECTED_GRADIENTS, "layout.py disagrees with workspace.cuh");
