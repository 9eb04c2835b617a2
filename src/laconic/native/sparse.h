/* y += W x for sparse W.

   The columns of W are cut into blocks, so that the part of x that a block reads stays in the nearest cache. Within a
   block, rows are sorted by how many non-zeros they have there, and taken in groups of four; a group has as many steps
   as the fullest of its rows has non-zeros. Equal groups form a segment: how often the innermost loop runs hardly ever
   changes, which is what makes short sparse rows fast.

     block    u32 segments, then as many segments
     segment  u32 count (steps of each group), u32 groups, u32 rows[groups][4], then groups x count steps
     step     u16 columns[4] within the block, then 4 values: one non-zero of each of the four rows, or a zero

   Rows of a group differ, so that each can be updated on its own. */
#ifndef LACONIC_SPARSE_H
#define LACONIC_SPARSE_H

#include "run.h"
#include "values.h"

#define GROUP 4u

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
  const uint32_t *rows;
  const uint8_t *steps, *end;
} sparse_segment;

INLINE uint32_t step_bytes(uint32_t width) { return GROUP * (2 + value_bytes(width)); }

INLINE sparse_segment segment_at(const uint8_t *at, uint32_t width) {
  const uint32_t *words = (const void *)at;
  const uint8_t *steps = at + 8 + (size_t)words[1] * GROUP * 4;
  return (sparse_segment){words[0], words[1], words + 2, steps, steps + (size_t)words[0] * words[1] * step_bytes(width)};
}

#define VECTOR vec
#define FLOATS LANES
#define KERNEL(name) name##_of_lanes
#include "sparse_kernel.h"

#if defined(__AVX512F__)
#define VECTOR vec16
#define FLOATS 16
#define KERNEL(name) name##_of_16
#include "sparse_kernel.h"
#endif

/* One block for as many columns as one pass takes: returns how many those were. */
INLINE uint32_t multiply_block(sparse_block b, sparse_operands o, uint32_t width, uint32_t columns) {
#if defined(__AVX512F__)
  if (columns >= 64) return block_of_16(b, o, width, 4, 4), 64;
  if (columns >= 32) return block_of_16(b, o, width, 4, 2), 32;
  if (columns >= 16) return block_of_16(b, o, width, 4, 1), 16;
#else
  if (columns >= 4 * LANES) return block_of_lanes(b, o, width, 2, 4), 4 * LANES;
  if (columns >= 2 * LANES) return block_of_lanes(b, o, width, 4, 2), 2 * LANES;
#endif
  return block_of_lanes(b, o, width, 4, 1), LANES;
}

INLINE void multiply_sparse_width(const plan_matrix *m, const uint8_t *at, const float *x, size_t x_stride, float *y,
                            size_t y_stride, uint32_t columns, uint32_t width) {
  for (uint32_t first = 0; first < m->columns; first += m->block) {
    sparse_block b = {at + 4, *(const uint32_t *)(const void *)at};
    for (uint32_t c = 0; c < columns;) {
      sparse_operands o = {x + first * x_stride + c, x_stride, y + c, y_stride, m->step};
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

/* Bytes of a segment that is sound; 0 for one that is not, or that does not lie within `bytes`. */
static uint64_t check_segment(const uint8_t *at, uint64_t bytes, uint32_t width, uint32_t rows, uint32_t columns) {
  if (bytes < 8) return 0;
  const uint32_t *words = (const void *)at;
  uint64_t count = words[0], groups = words[1];
  if (!count || !groups || count > columns || groups > rows) return 0;
  uint64_t header = 8 + groups * GROUP * 4, steps = groups * count;
  if (header > bytes || steps > (bytes - header) / step_bytes(width)) return 0;
  for (uint64_t i = 0; i < groups * GROUP; i++)
    if (words[2 + i] >= rows) return 0;
  uint32_t most = 0;
  for (uint64_t i = 0; i < steps; i++) {
    uint16_t found[GROUP];
    memcpy(found, at + header + i * step_bytes(width), sizeof found);
    for (uint32_t k = 0; k < GROUP; k++) most = found[k] > most ? found[k] : most;
  }
  return most < columns ? header + steps * step_bytes(width) : 0;
}

static int check_sparse(const plan_matrix *m, const uint8_t *at) {
  uint64_t left = m->bytes;
  if (!m->block) return 0;
  for (uint64_t first = 0; first < m->columns; first += m->block) {
    if (left < 4) return 0;
    uint32_t segments = *(const uint32_t *)(const void *)at;
    uint32_t columns = m->columns - (uint32_t)first < m->block ? m->columns - (uint32_t)first : m->block;
    at += 4, left -= 4;
    for (uint32_t s = 0; s < segments; s++) {
      uint64_t bytes = check_segment(at, left, m->width, m->rows, columns);
      if (!bytes) return 0;
      at += bytes, left -= bytes;
    }
  }
  return left == 0;
}

#endif
