/* Windows that slide over a map, the pixels of one channel row by row, under TensorFlow's SAME padding: what is missing
   of the last window is put half before and half behind the map, the odd one behind. */
#ifndef LACONIC_WINDOW_H
#define LACONIC_WINDOW_H

#include "run.h"

#define MOST_SIDE 4096u /* of a map */
#define MOST_KERNEL 32u /* side of a window */
#define MOST_STRIDE 32u

typedef struct {
  uint32_t height, width; /* of the map */
  uint32_t kernel, stride;
  uint32_t rows, columns; /* how many windows below and beside each other */
  int32_t top, left;      /* padding before */
} window;

INLINE int32_t padding_before(uint32_t length, uint32_t windows, uint32_t kernel, uint32_t stride) {
  uint32_t spanned = (windows - 1) * stride + kernel;
  return spanned > length ? (int32_t)(spanned - length) / 2 : 0;
}

/* height, width, kernel, stride */
INLINE window window_of(const uint32_t *a) {
  window w = {a[0], a[1], a[2], a[3], (a[0] + a[3] - 1) / a[3], (a[1] + a[3] - 1) / a[3], 0, 0};
  w.top = padding_before(w.height, w.rows, w.kernel, w.stride);
  w.left = padding_before(w.width, w.columns, w.kernel, w.stride);
  return w;
}

/* Whether they are possible, x is such a map for each of its rows, and y has a column for each window. */
static int check_window(const plan_view *plan, const uint32_t *a, uint32_t x, uint32_t y) {
  for (uint32_t i = 0; i < 2; i++)
    if (a[i] < 1 || a[i] > MOST_SIDE) return 0;
  if (a[2] < 1 || a[2] > MOST_KERNEL || a[3] < 1 || a[3] > MOST_STRIDE) return 0;
  window w = window_of(a);
  if (x >= plan->header->buffers || y >= plan->header->buffers) return 0;
  return known_columns(plan, x) == w.height * w.width && known_columns(plan, y) == w.rows * w.columns;
}

#if LANES == 8
#define EVENS(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#else
#define EVENS(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6)
#endif

/* Every stride-th number from `from` on: `count` of them, and up to LANES - 1 more, which are read and written. */
INLINE void copy_spaced(float *to, uint32_t count, const float *from, uint32_t stride) {
  if (stride == 1)
    for (uint32_t i = 0; i < count; i += LANES) store(to + i, load(from + i));
  else if (stride == 2)
    for (uint32_t i = 0; i < count; i += LANES) store(to + i, EVENS(load(from + 2 * i), load(from + 2 * i + LANES)));
  else
    for (uint32_t i = 0; i < count; i++) to[i] = from[(size_t)i * stride];
}

/* Which i of 0 to count have i * stride + shift within a row of `length` numbers. */
typedef struct {
  uint32_t begin, end;
} span;

INLINE uint32_t first_reaching(int32_t goal, int32_t stride, uint32_t count) {
  uint32_t first = goal > 0 ? (uint32_t)((goal + stride - 1) / stride) : 0;
  return first < count ? first : count;
}

INLINE span inside(uint32_t length, uint32_t stride, int32_t shift, uint32_t count) {
  return (span){first_reaching(-shift, (int32_t)stride, count),
                first_reaching((int32_t)length - shift, (int32_t)stride, count)};
}

/* A band of a map with its padding, laid out so that what one tap of neighbouring windows sees lies side by side: each
   row as `stride` phases, the columns that are equal modulo the stride, each `pitch` floats long. */
typedef struct {
  window of;
  float *at;
  uint32_t pitch;
  uint32_t rows;             /* of windows in a band at most */
  float outside;             /* the padding */
  span columns[MOST_STRIDE]; /* of each phase, which are the map's */
} band;

INLINE uint32_t pitch_of(const window *w) { return (uint32_t)round_up(w->columns, 16) + 16; }

INLINE band band_of(const laconic_run *run, uint32_t buffer, const window *w, float outside) {
  table scratch = table_of(run, buffer, 0);
  uint32_t pitch = pitch_of(w), held = scratch.columns / (w->stride * pitch);
  band b = {*w, scratch.at, pitch, (held - w->kernel) / w->stride + 1, outside, {{0, 0}}};
  for (uint32_t phase = 0; phase < w->stride; phase++)
    b.columns[phase] = inside(w->width, w->stride, (int32_t)phase - w->left, pitch);
  for (uint32_t i = 0; i < held * w->stride * pitch; i++) b.at[i] = outside;
  return b;
}

/* The scratch of a band is a table of one row, which holds one row of windows at least. */
static int check_band(const plan_view *plan, uint32_t buffer, const uint32_t *a) {
  if (!has_space(plan, buffer, PIXELS)) return 0;
  window w = window_of(a);
  return plan->buffers[buffer].columns / (w.stride * pitch_of(&w)) >= w.kernel;
}

/* Row of the map to row of the band, between paddings that are there already. */
INLINE void lay_row(const band *b, float *to, const float *from, uint32_t stride) {
  vec outside = splat(b->outside);
  for (uint32_t phase = 0; phase < stride; phase++, to += b->pitch) {
    span s = b->columns[phase];
    if (s.begin == s.end) continue;
    copy_spaced(to + s.begin, s.end - s.begin, from + (int32_t)(s.begin * stride + phase) - b->of.left, stride);
    store(to + s.end, outside);
  }
}

/* What windows `first` to `first + count` of a column see of a map. */
INLINE void lay_band(const band *b, const float *map, uint32_t first, uint32_t count) {
  uint32_t stride = b->of.stride, floats = stride * b->pitch, rows = (count - 1) * stride + b->of.kernel;
  for (uint32_t r = 0; r < rows; r++) {
    int32_t row = (int32_t)(first * stride + r) - b->of.top;
    float *to = b->at + (size_t)r * floats;
    if (row < 0 || row >= (int32_t)b->of.height) {
      for (uint32_t i = 0; i < floats; i += LANES) store(to + i, splat(b->outside));
      continue;
    }
    const float *from = map + (size_t)row * b->of.width;
    if (stride == 1) lay_row(b, to, from, 1);
    else if (stride == 2) lay_row(b, to, from, 2);
    else lay_row(b, to, from, stride);
  }
}

/* What tap (row, column) of a row of windows sees. */
INLINE const float *tap(const band *b, uint32_t window_row, uint32_t row, uint32_t column) {
  uint32_t stride = b->of.stride;
  return b->at + ((size_t)(window_row * stride + row) * stride + column % stride) * b->pitch + column / stride;
}

#endif
