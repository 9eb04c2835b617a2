/* Pooling of maps, and sums of tables. */
#ifndef LACONIC_POOLING_H
#define LACONIC_POOLING_H

#include "window.h"

/* The larger one; NaN, once it is found, stays. */
INLINE vec larger(vec found, vec x) { return choose((x <= found) | (found != found), found, x); }

/* A row of windows: the largest number that each sees. */
INLINE void largest_of_row(const band *b, uint32_t row, float *y) {
  uint32_t kernel = b->of.kernel;
  for (uint32_t x = 0; x < b->of.columns; x += LANES) {
    vec found = splat(b->outside);
    for (uint32_t i = 0; i < kernel; i++)
      for (uint32_t j = 0; j < kernel; j++) found = larger(found, load(tap(b, row, i, j) + x));
    store(y + x, found);
  }
}

/* x, y, height, width, kernel, stride, scratch */
static void run_max_pool(const laconic_run *run, const uint32_t *a) {
  window w = window_of(a + 2);
  table x = table_of(run, a[0], 0), y = table_of(run, a[1], 0);
  band b = band_of(run, a[6], &w, -__builtin_inff());
  for (uint32_t channel = 0; channel < y.rows; channel++)
    for (uint32_t first = 0; first < w.rows; first += b.rows) {
      uint32_t rows = w.rows - first < b.rows ? w.rows - first : b.rows;
      float *to = y.at + channel * y.stride + (size_t)first * w.columns;
      lay_band(&b, x.at + channel * x.stride, first, rows);
      for (uint32_t row = 0; row < rows; row++) largest_of_row(&b, row, to + (size_t)row * w.columns);
    }
}

static int check_max_pool(const plan_view *plan, const uint32_t *a) {
  return check_window(plan, a + 2, a[0], a[1]) && check_band(plan, a[6], a + 2) &&
         has_rows(plan, a[0], 0, plan->buffers[a[1]].rows);
}

/* y += x: x, x_row, y, y_row, rows */
static void run_add(const laconic_run *run, const uint32_t *a) {
  table x = table_of(run, a[0], a[1]), y = table_of(run, a[2], a[3]);
  for (uint32_t r = 0; r < a[4]; r++)
    for (uint32_t c = 0; c < y.columns; c += LANES) {
      float *to = y.at + r * y.stride + c;
      store(to, load(to) + load(x.at + r * x.stride + c));
    }
}

static int check_add(const plan_view *plan, const uint32_t *a) {
  return has_rows(plan, a[0], a[1], a[4]) && has_rows(plan, a[2], a[3], a[4]) && same_columns(plan, a[0], a[2]);
}

/* The mean of each row of x into the column of y that is the image's. */
static void run_mean(const laconic_run *run, const uint32_t *a) {
  table x = table_of(run, a[0], 0), y = table_of(run, a[1], 0);
  for (uint32_t r = 0; r < y.rows; r++) {
    const float *from = x.at + r * x.stride;
    uint32_t c = 0;
    vec sums = splat(0.0f);
    for (; c + LANES <= x.columns; c += LANES) sums += load(from + c);
    float sum = sum_of(sums);
    for (; c < x.columns; c++) sum += from[c];
    y.at[r * y.stride + run->image] = sum / (float)x.columns;
  }
}

static int check_mean(const plan_view *plan, const uint32_t *a) {
  return has_space(plan, a[1], IMAGES) && has_rows(plan, a[0], 0, plan->buffers[a[1]].rows) &&
         (has_space(plan, a[0], PIXELS) || has_space(plan, a[0], POSITIONS));
}

#endif
