/* Tables whose columns are captions, to rows of memory that belong to one caption each, and back. */
#ifndef LACONIC_TRANSPOSE_H
#define LACONIC_TRANSPOSE_H

#include "run.h"

#define JOINED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

/* Rows and columns of LANES vectors change places. */
INLINE void transpose(vec *tile) {
#if LANES == 8u
  vec t[LANES];
  for (uint32_t i = 0; i < 8; i += 2) {
    t[i] = JOINED(tile[i], tile[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    t[i + 1] = JOINED(tile[i], tile[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (uint32_t i = 0; i < 8; i += 4)
    for (uint32_t k = 0; k < 2; k++) {
      tile[i + k] = JOINED(t[i + k], t[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      tile[i + k + 2] = JOINED(t[i + k], t[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (uint32_t i = 0; i < 4; i++) {
    t[i] = JOINED(tile[i], tile[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    t[i + 4] = JOINED(tile[i], tile[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  for (uint32_t i = 0; i < 8; i++) tile[i] = t[i];
#else
  vec a = JOINED(tile[0], tile[1], 0, 4, 2, 6), b = JOINED(tile[0], tile[1], 1, 5, 3, 7);
  vec c = JOINED(tile[2], tile[3], 0, 4, 2, 6), d = JOINED(tile[2], tile[3], 1, 5, 3, 7);
  tile[0] = JOINED(a, c, 0, 1, 4, 5), tile[1] = JOINED(b, d, 0, 1, 4, 5);
  tile[2] = JOINED(a, c, 2, 3, 6, 7), tile[3] = JOINED(b, d, 2, 3, 6, 7);
#endif
}

/* `rows` rows of `columns` columns, LANES at most, to memory: to[c][r] = from[r * stride + c]. */
static void take_columns(const float *from, size_t stride, uint32_t rows, uint32_t columns, float *const *to) {
  uint32_t r = 0;
  for (; r + LANES <= rows; r += LANES) {
    vec tile[LANES];
    for (uint32_t i = 0; i < LANES; i++) tile[i] = load(from + (r + i) * stride);
    transpose(tile);
    for (uint32_t c = 0; c < columns; c++) store(to[c] + r, tile[c]);
  }
  for (; r < rows; r++)
    for (uint32_t c = 0; c < columns; c++) to[c][r] = from[r * stride + c];
}

/* The other way; LANES columns are written, of which those from `columns` on hold nothing of use. */
static void give_columns(const float *const *from, uint32_t rows, uint32_t columns, float *to, size_t stride) {
  uint32_t r = 0;
  for (; r + LANES <= rows; r += LANES) {
    vec tile[LANES];
    for (uint32_t c = 0; c < LANES; c++) tile[c] = c < columns ? load(from[c] + r) : splat(0.0f);
    transpose(tile);
    for (uint32_t i = 0; i < LANES; i++) store(to + (r + i) * stride, tile[i]);
  }
  for (; r < rows; r++)
    for (uint32_t c = 0; c < columns; c++) to[r * stride + c] = from[c][r];
}

#endif
