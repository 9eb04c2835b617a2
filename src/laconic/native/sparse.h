/* y += W x for sparse W.

   The rows of W are cut into slices and the columns into blocks, so that what a block reads and writes stays in the
   nearest caches. Within a block of a slice, rows are sorted by how many non-zeros they have there, and taken in
   groups of four; a group has as many steps as the fullest of its rows has non-zeros. Equal groups form a segment: how
   often the innermost loop runs hardly ever changes, which is what makes short sparse rows fast.

     slice    512 rows, or all that are left where fewer than 516 are; of each, its blocks
     block    u32 segments, then as many segments
     segment  u32 count (steps of each group), u32 groups, u16 rows[groups][4] within the slice, groups x count steps
     step     u16 4 x column within the block, for each of the four rows, then their 4 values: a non-zero, or a zero

   Rows of a group differ, so that each can be updated on its own. */
#ifndef LACONIC_SPARSE_H
#define LACONIC_SPARSE_H

#include "run.h"
#include "values.h"

#define GROUP 4u
#define SLICE 512u
#define MOST_BLOCK 16384u

typedef struct { /* of a block: where its part of x begins */
  const float *x;
  size_t x_stride;
  float *y;
  size_t y_stride;
  float step;
} sparse_operands;

typedef struct {
  const uint8_t *at; /* its first segment */
  uint32_t segments;
} sparse_block;

typedef struct {
  uint32_t count, groups;
  const uint16_t *rows;
  const uint8_t *steps, *end;
} sparse_segment;

INLINE uint32_t step_bytes(uint32_t width) { return GROUP * (2 + value_bytes(width)); }

INLINE sparse_segment segment_at(const uint8_t *at, uint32_t width) {
  const uint32_t *words = (const void *)at;
  const uint8_t *steps = at + 8 + (size_t)words[1] * GROUP * 2;
  const uint8_t *end = steps + (size_t)words[0] * words[1] * step_bytes(width);
  return (sparse_segment){words[0], words[1], (const void *)(at + 8), steps, end};
}

#define VECTOR vec
#define FLOATS LANES
#define KERNEL(name) sparse_##name##_of_lanes
#include "sparse_kernel.h"

#if defined(__AVX512F__)
#define VECTOR vec16
#define FLOATS 16
#define KERNEL(name) sparse_##name##_of_16
#include "sparse_kernel.h"
#endif

/* One block for as many columns as one pass takes: returns how many those were. */
INLINE uint32_t multiply_block(sparse_block b, sparse_operands o, uint32_t width, uint32_t columns) {
#if defined(__AVX512F__)
  if (columns >= 64) return sparse_block_of_16(b, o, width, 4, 4), 64;
  if (columns >= 32) return sparse_block_of_16(b, o, width, 4, 2), 32;
  if (columns >= 16) return sparse_block_of_16(b, o, width, 4, 1), 16;
#else
  if (columns >= 8 * LANES) {
    if (o.x_stride != PANEL || o.y_stride != PANEL) return sparse_block_of_lanes(b, o, width, 1, 8), 8 * LANES;
    o.x_stride = o.y_stride = PANEL; /* known to the compiler: places are found by shifting, not by multiplying */
    return sparse_block_of_lanes(b, o, width, 1, 8), 8 * LANES;
  }
  if (columns >= 4 * LANES) return sparse_block_of_lanes(b, o, width, 2, 4), 4 * LANES;
  if (columns >= 2 * LANES) return sparse_block_of_lanes(b, o, width, 4, 2), 2 * LANES;
#endif
  if (o.x_stride != LANES) return sparse_block_of_lanes(b, o, width, 4, 1), LANES;
  o.x_stride = LANES; /* known to the compiler: no multiplication to find a row of x */
  return sparse_block_of_lanes(b, o, width, 4, 1), LANES;
}

INLINE uint32_t slice_of(uint32_t rows) { return rows < SLICE + GROUP ? rows : SLICE; }

INLINE void multiply_sparse_width(const plan_matrix *m, const uint8_t *at, const float *x, size_t x_stride, float *y,
                                  size_t y_stride, uint32_t columns, uint32_t width) {
  for (uint32_t r = 0; r < m->rows; r += slice_of(m->rows - r))
    for (uint32_t k = 0; k < m->columns; k += m->block) {
      sparse_block b = {at + 4, *(const uint32_t *)(const void *)at};
      for (uint32_t c = 0; c < columns;) {
        sparse_operands o = {x + k * x_stride + c, x_stride, y + r * y_stride + c, y_stride, m->step};
        c += multiply_block(b, o, width, columns - c);
      }
      at = b.at;
      for (uint32_t s = 0; s < b.segments; s++) at = segment_at(at, width).end;
    }
}

static void multiply_sparse(const plan_matrix *m, const uint8_t *at, const float *x, size_t x_stride, float *y,
                            size_t y_stride, uint32_t columns) {
  columns = (uint32_t)round_up(columns, LANES);
  if (m->width == FLOAT32) multiply_sparse_width(m, at, x, x_stride, y, y_stride, columns, FLOAT32);
  if (m->width == BFLOAT16) multiply_sparse_width(m, at, x, x_stride, y, y_stride, columns, BFLOAT16);
  if (m->width == INT8) multiply_sparse_width(m, at, x, x_stride, y, y_stride, columns, INT8);
}

static int check_group(const uint16_t *rows, uint32_t most) {
  for (uint32_t i = 0; i < GROUP; i++) {
    if (rows[i] >= most) return 0;
    for (uint32_t k = 0; k < i; k++)
      if (rows[i] == rows[k]) return 0;
  }
  return 1;
}

/* Bytes of a segment that is sound; 0 for one that is not, or that does not lie within `bytes`. */
static uint64_t check_segment(const uint8_t *at, uint64_t bytes, uint32_t width, uint32_t rows, uint32_t columns) {
  if (bytes < 8) return 0;
  const uint32_t *words = (const void *)at;
  uint64_t count = words[0], groups = words[1];
  if (!count || !groups || count > columns || groups > rows) return 0;
  uint64_t header = 8 + groups * GROUP * 2, steps = groups * count;
  if (header > bytes || steps > (bytes - header) / step_bytes(width)) return 0;
  const uint16_t *found = (const void *)(at + 8);
  for (uint64_t g = 0; g < groups; g++)
    if (!check_group(found + g * GROUP, rows)) return 0;
  uint32_t most = 0, all = 0;
  for (uint64_t i = 0; i < steps; i++) {
    found = (const void *)(at + header + i * step_bytes(width));
    for (uint32_t k = 0; k < GROUP; k++) most = found[k] > most ? found[k] : most, all |= found[k];
  }
  return all % 4 == 0 && most < 4 * columns ? header + steps * step_bytes(width) : 0;
}

/* Bytes of a block that is sound, or 0. */
static uint64_t check_block(const uint8_t *at, uint64_t bytes, uint32_t width, uint32_t rows, uint32_t columns) {
  if (bytes < 4) return 0;
  uint32_t segments = *(const uint32_t *)(const void *)at;
  uint64_t taken = 4;
  for (uint32_t s = 0; s < segments; s++) {
    uint64_t segment = check_segment(at + taken, bytes - taken, width, rows, columns);
    if (!segment) return 0;
    taken += segment;
  }
  return taken;
}

static int check_sparse(const plan_matrix *m, const uint8_t *at) {
  uint64_t left = m->bytes;
  if (m->block < 1 || m->block > MOST_BLOCK) return 0;
  for (uint32_t r = 0; r < m->rows; r += slice_of(m->rows - r))
    for (uint32_t k = 0; k < m->columns; k += m->block) {
      uint32_t columns = m->columns - k < m->block ? m->columns - k : m->block;
      uint64_t block = check_block(at, left, m->width, slice_of(m->rows - r), columns);
      if (!block) return 0;
      at += block, left -= block;
    }
  return left == 0;
}

#endif
