/* y += W x for dense W.

   Rows in tiles of 8, the last one filled up with zeros; of each tile, column by column, 8 values. Sums of some rows
   times some vectors of columns stay in registers: as many as there are. x is read in depths of 256 rows; with many
   columns that part of it is copied side by side first, since rows of a wide map lie so far apart that they would
   displace each other from the nearest cache. */
#ifndef LACONIC_DENSE_H
#define LACONIC_DENSE_H

#include "run.h"
#include "values.h"

#define TILE 8u
#define DEPTH 256u

typedef struct {        /* of one tile, at one depth */
  const float *weights; /* count x TILE */
  const float *x;
  float *y;
  size_t x_stride, y_stride;
  uint32_t count, rows;
} dense_operands;

#define VECTOR vec
#define FLOATS LANES
#define KERNEL(name) dense_##name##_of_lanes
#include "dense_kernel.h"

#if defined(__AVX512F__)
#define FLOATS 16
#define VECTOR vec16
#define KERNEL(name) dense_##name##_of_16
#include "dense_kernel.h"
#endif

#if defined(__AVX512F__) || defined(__aarch64__) /* 32 registers: 24 of them are sums */
#define TOGETHER 8u
#define ABREAST 3u
#else /* 16: with 12 sums Clang runs out of them, and 8 are as fast */
#define TOGETHER 4u
#define ABREAST 2u
#endif
#if defined(__AVX512F__)
#define WIDEST (ABREAST * 16u)
#else
#define WIDEST (ABREAST * LANES)
#endif

/* One tile, for as many columns as pass_of says. */
static void multiply_tile(dense_operands o, uint32_t columns) {
#if defined(__AVX512F__)
  if (columns == 48) return dense_tile_of_16(o, TOGETHER, 3);
  if (columns == 32) return dense_tile_of_16(o, TOGETHER, 2);
  if (columns == 16) return dense_tile_of_16(o, TOGETHER, 1);
#else
  if (columns == ABREAST * LANES) return dense_tile_of_lanes(o, TOGETHER, ABREAST);
  if (columns == 2 * LANES) return dense_tile_of_lanes(o, TOGETHER, 2);
#endif
  dense_tile_of_lanes(o, TILE, 1);
}

/* How many columns one pass takes, of those that are left. */
INLINE uint32_t pass_of(uint32_t columns) {
  if (columns >= WIDEST) return WIDEST;
#if defined(__AVX512F__)
  return columns >= 32 ? 32 : columns >= 16 ? 16 : LANES;
#else
  return columns >= 2 * LANES ? 2 * LANES : LANES;
#endif
}

typedef uint32_t float_bits __attribute__((may_alias));

/* Weights of one tile at one depth, as float32: as they lie there, or widened into `room`. */
INLINE const float *widened(const uint8_t *at, uint32_t count, const plan_matrix *m, float *room) {
  if (m->width == FLOAT32) return (const void *)at;
  const uint16_t *halves = (const void *)at;
  const int8_t *codes = (const void *)at;
  float_bits *bits = (void *)room;
  if (m->width == BFLOAT16)
    for (uint32_t i = 0; i < count * TILE; i++) bits[i] = (uint32_t)halves[i] << 16;
  else
    for (uint32_t i = 0; i < count * TILE; i++) room[i] = (float)codes[i] * m->step;
  return room;
}

/* Some rows of x, `columns` of each, one behind the other. */
INLINE void gather(float *room, const float *x, size_t x_stride, uint32_t rows, uint32_t columns) {
  for (uint32_t k = 0; k < rows; k++)
    for (uint32_t c = 0; c < columns; c += LANES) store(room + k * columns + c, load(x + k * x_stride + c));
}

/* Depth by depth, pass by pass, all tiles: what a pass reads of x is read again and again. */
static void multiply_wide(const plan_matrix *m, const uint8_t *at, const float *x, size_t x_stride, float *y,
                          size_t y_stride, uint32_t columns) {
  float room[DEPTH * TILE], side_by_side[DEPTH * WIDEST];
  size_t tile_bytes = (size_t)m->columns * TILE * value_bytes(m->width);
  for (uint32_t k = 0; k < m->columns; k += DEPTH) {
    uint32_t count = m->columns - k < DEPTH ? m->columns - k : DEPTH;
    for (uint32_t c = 0, pass; c < columns; c += pass) {
      pass = pass_of(columns - c);
      gather(side_by_side, x + k * x_stride + c, x_stride, count, pass);
      for (uint32_t r = 0; r < m->rows; r += TILE) {
        const uint8_t *from = at + r / TILE * tile_bytes + (size_t)k * TILE * value_bytes(m->width);
        const float *weights = widened(from, count, m, room);
        float *to = y + r * y_stride + c;
        multiply_tile((dense_operands){weights, side_by_side, to, pass, y_stride, count, m->rows - r}, pass);
      }
    }
  }
}

/* Tile by tile: weights are read once, in the order in which they lie in memory. */
static void multiply_narrow(const plan_matrix *m, const uint8_t *at, const float *x, size_t x_stride, float *y,
                            size_t y_stride, uint32_t columns) {
  float room[DEPTH * TILE];
  for (uint32_t r = 0; r < m->rows; r += TILE)
    for (uint32_t k = 0; k < m->columns; k += DEPTH) {
      uint32_t count = m->columns - k < DEPTH ? m->columns - k : DEPTH;
      const float *weights = widened(at, count, m, room);
      at += count * TILE * value_bytes(m->width);
      for (uint32_t c = 0, pass; c < columns; c += pass) {
        pass = pass_of(columns - c);
        const float *from = x + k * x_stride + c;
        float *to = y + r * y_stride + c;
        multiply_tile((dense_operands){weights, from, to, x_stride, y_stride, count, m->rows - r}, pass);
      }
    }
}

static void multiply_dense(const plan_matrix *m, const uint8_t *at, const float *x, size_t x_stride, float *y,
                           size_t y_stride, uint32_t columns) {
  columns = (uint32_t)round_up(columns, LANES);
  if (columns > WIDEST) multiply_wide(m, at, x, x_stride, y, y_stride, columns);
  else multiply_narrow(m, at, x, x_stride, y, y_stride, columns);
}

static int check_dense(const plan_matrix *m) {
  return round_up(m->rows, TILE) * (uint64_t)m->columns * value_bytes(m->width) == m->bytes;
}

#endif
