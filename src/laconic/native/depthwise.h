/* Convolutions of each channel with a kernel of its own. */
#ifndef LACONIC_DEPTHWISE_H
#define LACONIC_DEPTHWISE_H

#include "window.h"

typedef struct { /* what becomes of the sum of a window */
  vec bias, low, high;
} finish;

INLINE finish finish_of(uint32_t activation, float bias) {
  vec infinite = splat(__builtin_inff());
  return (finish){splat(bias), activation == LINEARLY ? -infinite : splat(0.0f),
                  activation == RELU6 ? splat(6.0f) : infinite};
}

/* In this order NaN stays. */
INLINE void put_finished(float *to, vec sum, finish f) { store(to, least(f.high, most(f.low, sum))); }

/* A row of weights times what each of its taps sees: 3 or 5 of them, known when compiled. */
INLINE vec weighted(vec sum, const vec *weights, const vec *seen, uint32_t kernel) {
  sum = sum + weights[0] * seen[0] + weights[1] * seen[1] + weights[2] * seen[2];
  return kernel == 5 ? sum + weights[3] * seen[3] + weights[4] * seen[4] : sum;
}

/* `count` rows of windows of `kernel` x `kernel`, 3 or 5, at most 4 of stride 1 or 2 of stride 2, known when compiled:
   each row of the band is loaded once for all of them. From the last vector to the first: what a vector writes beyond
   its row is written again. */
INLINE void filter_rows(const band *b, uint32_t row, uint32_t count, uint32_t kernel, uint32_t stride,
                        const vec *weights, finish f, float *y) {
  uint32_t columns = b->of.columns, pitch = b->pitch;
  const float *from = b->at + (size_t)row * stride * stride * pitch;
  for (uint32_t x = (columns - 1) / LANES * LANES;; x -= LANES) {
    vec sums[4] = {f.bias, f.bias, f.bias, f.bias};
    const float *at = from + x;
    for (uint32_t r = 0; r < (count - 1) * stride + kernel; r++, at += stride * pitch) {
      vec seen[5];
      for (uint32_t j = 0; j < kernel; j++) seen[j] = load(at + j % stride * pitch + j / stride);
      for (uint32_t i = 0; i < count; i++)
        if (r >= i * stride && r < i * stride + kernel)
          sums[i] = weighted(sums[i], weights + kernel * (r - i * stride), seen, kernel);
    }
    for (uint32_t i = 0; i < count; i++) put_finished(y + i * columns + x, sums[i], f);
    if (!x) break;
  }
}

/* A row of windows of any size. */
INLINE void filter_any(const band *b, uint32_t row, const float *weights, finish f, float *y) {
  uint32_t kernel = b->of.kernel;
  for (uint32_t x = 0; x < b->of.columns; x += LANES) {
    vec sum = f.bias;
    for (uint32_t i = 0; i < kernel; i++)
      for (uint32_t j = 0; j < kernel; j++) sum += splat(weights[i * kernel + j]) * load(tap(b, row, i, j) + x);
    put_finished(y + x, sum, f);
  }
}

/* All rows of a band, `most` at a time; kernel and stride are known when compiled. */
INLINE void filter_band(const band *b, uint32_t rows, uint32_t most, uint32_t kernel, uint32_t stride,
                        const float *weights, finish f, float *y) {
  vec w[25];
  uint32_t row = 0, columns = b->of.columns;
  for (uint32_t i = 0; i < kernel * kernel; i++) w[i] = splat(weights[i]);
  for (; row + most <= rows; row += most) filter_rows(b, row, most, kernel, stride, w, f, y + (size_t)row * columns);
  for (; row < rows; row++) filter_rows(b, row, 1, kernel, stride, w, f, y + (size_t)row * columns);
}

static void filter(const band *b, uint32_t rows, const float *weights, finish f, float *y) {
  uint32_t kernel = b->of.kernel, stride = b->of.stride;
  if (kernel == 3 && stride == 1) filter_band(b, rows, 4, 3, 1, weights, f, y);
  else if (kernel == 3 && stride == 2) filter_band(b, rows, 2, 3, 2, weights, f, y);
  else if (kernel == 5 && stride == 1) filter_band(b, rows, 4, 5, 1, weights, f, y);
  else if (kernel == 5 && stride == 2) filter_band(b, rows, 2, 5, 2, weights, f, y);
  else
    for (uint32_t row = 0; row < rows; row++) filter_any(b, row, weights, f, y + (size_t)row * b->of.columns);
}

/* x, y, weights, bias, height, width, kernel, stride, activation, scratch */
static void run_depthwise(const laconic_run *run, const uint32_t *a) {
  window w = window_of(a + 4);
  table x = table_of(run, a[0], 0), y = table_of(run, a[1], 0);
  band b = band_of(run, a[9], &w, 0.0f);
  const float *weights = constants(&run->plan, a[2]), *bias = constants(&run->plan, a[3]);
  for (uint32_t channel = 0; channel < y.rows; channel++, weights += w.kernel * w.kernel) {
    finish f = finish_of(a[8], bias ? bias[channel] : 0.0f);
    for (uint32_t first = 0; first < w.rows; first += b.rows) {
      uint32_t rows = w.rows - first < b.rows ? w.rows - first : b.rows;
      float *to = y.at + channel * y.stride + (size_t)first * w.columns;
      lay_band(&b, x.at + channel * x.stride, first, rows);
      filter(&b, rows, weights, f, to);
    }
  }
}

static int check_depthwise(const plan_view *plan, const uint32_t *a) {
  if (!check_window(plan, a + 4, a[0], a[1]) || a[8] > RELU6 || !check_band(plan, a[9], a + 4)) return 0;
  uint32_t channels = plan->buffers[a[1]].rows;
  if (!has_rows(plan, a[0], 0, channels)) return 0;
  if (a[2] == NONE || !has_constants(plan, a[2], (uint64_t)channels * a[6] * a[6])) return 0;
  return a[3] == NONE || has_constants(plan, a[3], channels);
}

#endif
