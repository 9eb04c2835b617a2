/* What training asks of the library: the arithmetic of laconic.compress.masked.gating, element by element, each kernel
   in one pass over memory. Not for applications, so not in laconic.h.

   KERNEL(result, name, parameters, arguments) of each; the library exports it as gating_NAME. Arrays have n elements
   and do not overlap; those of bfloat16 hold the upper halves of floats. */
#ifndef LACONIC_GATING_H
#define LACONIC_GATING_H

#include <stddef.h>
#include <stdint.h>

#include "levels.h"

typedef uint16_t bfloat16;

#define GATING_KERNELS(KERNEL)                                                                                       \
  KERNEL(void, mix, (size_t n, const uint64_t *counters, uint64_t *words, uint64_t first),                           \
         (n, counters, words, first))                                                                                \
  KERNEL(void, draw, (size_t n, const float *gates, const int16_t *noise, uint8_t *keep), (n, gates, noise, keep))   \
  KERNEL(void, multiply_float, (size_t n, const float *x, const uint8_t *keep, float *out), (n, x, keep, out))       \
  KERNEL(void, multiply_to_bfloat16, (size_t n, const float *x, const uint8_t *keep, bfloat16 *out),                 \
         (n, x, keep, out))                                                                                          \
  KERNEL(void, multiply_bfloat16, (size_t n, const bfloat16 *x, const uint8_t *keep, float *out), (n, x, keep, out)) \
  KERNEL(void, gradients_float,                                                                                      \
         (size_t n, const float *grad, const float *weight, const float *gates, const uint8_t *keep,                 \
          float *grad_weight, float *grad_gates),                                                                    \
         (n, grad, weight, gates, keep, grad_weight, grad_gates))                                                    \
  KERNEL(void, gradients_bfloat16,                                                                                   \
         (size_t n, const bfloat16 *grad, const float *weight, const float *gates, const uint8_t *keep,              \
          float *grad_weight, float *grad_gates),                                                                    \
         (n, grad, weight, gates, keep, grad_weight, grad_gates))                                                    \
  KERNEL(int64_t, add_slope, (size_t n, const float *gates, float *grad, float factor), (n, gates, grad, factor))    \
  KERNEL(int64_t, count_open, (size_t n, const float *gates), (n, gates))

#endif
