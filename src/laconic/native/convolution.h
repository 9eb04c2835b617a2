/* Pixels to planes, and convolutions as products of matrices, strip by strip of output columns. */
#ifndef LACONIC_CONVOLUTION_H
#define LACONIC_CONVOLUTION_H

#include "linear.h"
#include "window.h"

/* y */
static void run_read_pixels(const laconic_run *run, const uint32_t *a) {
  const plan_header *h = run->plan.header;
  table y = table_of(run, a[0], 0);
  for (uint32_t channel = 0; channel < 3; channel++) {
    float *to = y.at + channel * y.stride;
    for (uint32_t i = 0; i < y.columns; i++)
      to[i] = (float)run->pixels[3 * (size_t)i + channel] / h->scale[channel] - h->shift[channel];
  }
}

static int check_read_pixels(const plan_view *plan, const uint32_t *a) {
  uint32_t side = plan->header->side;
  return side && has_space(plan, a[0], PIXELS) && has_rows(plan, a[0], 0, 3) &&
         plan->buffers[a[0]].columns == side * side;
}

/* What one tap of the windows `first` to `first + count`, counted row by row, sees of a map. Up to LANES - 1 numbers
   more are written. */
INLINE void gather_tap(float *to, const window *w, const float *map, uint32_t row, uint32_t column, uint32_t first,
                       uint32_t count) {
  uint32_t y = first / w->columns, x = first % w->columns;
  for (uint32_t done = 0, some; done < count; done += some, y++, x = 0) {
    some = w->columns - x < count - done ? w->columns - x : count - done;
    float *into = to + done;
    int32_t from_row = (int32_t)(y * w->stride + row) - w->top;
    int32_t shift = (int32_t)(x * w->stride + column) - w->left;
    span s = inside(w->width, w->stride, shift, some);
    if (from_row < 0 || from_row >= (int32_t)w->height) s.begin = s.end = 0;
    for (uint32_t i = 0; i < s.begin; i++) into[i] = 0.0f;
    if (s.begin < s.end)
      copy_spaced(into + s.begin, s.end - s.begin,
                  map + (size_t)from_row * w->width + ((int32_t)(s.begin * w->stride) + shift), w->stride);
    for (uint32_t i = s.end; i < some; i++) into[i] = 0.0f;
  }
}

/* A strip of the matrix that the weights are multiplied with: a row for each channel and tap. */
static void gather_windows(table to, const window *w, table x, uint32_t first, uint32_t count) {
  uint32_t channels = to.rows / (w->kernel * w->kernel);
  float *at = to.at;
  for (uint32_t channel = 0; channel < channels; channel++)
    for (uint32_t row = 0; row < w->kernel; row++)
      for (uint32_t column = 0; column < w->kernel; column++, at += to.stride)
        gather_tap(at, w, x.at + channel * x.stride, row, column, first, count);
}

/* x, x_row, y, y_row, matrix, height, width, kernel, stride, start, activation, scratch, columns of a strip.
   Without scratch, which kernel 1 and stride 1 do without, the map itself is multiplied. */
static void run_convolve(const laconic_run *run, const uint32_t *a) {
  const plan_matrix *m = run->plan.matrices + a[4];
  table x = table_of(run, a[0], a[1]), y = table_of(run, a[2], a[3]), scratch = {0};
  if (a[11] != NONE) scratch = table_of(run, a[11], 0), scratch.rows = m->columns;
  window w = window_of(a + 5);
  uint32_t all = w.rows * w.columns;
  for (uint32_t first = 0; first < all; first += a[12]) {
    table strip = {y.at + first, m->rows, all - first < a[12] ? all - first : a[12], y.stride};
    table from = {x.at + first, m->columns, strip.columns, x.stride};
    if (a[11] != NONE) from = scratch, gather_windows(from, &w, x, first, strip.columns);
    begin(run, m, strip, a[9], NONE);
    multiply(&run->plan, m, from.at, from.stride, strip.at, strip.stride, strip.columns);
    activate(strip.at, strip.stride, m->rows, strip.columns, a[10]);
  }
}

static int check_convolve(const plan_view *plan, const uint32_t *a) {
  if (!check_window(plan, a + 5, a[0], a[2]) || !has_matrix(plan, a[4], 0)) return 0;
  const plan_matrix *m = plan->matrices + a[4];
  uint32_t taps = a[7] * a[7];
  if (m->columns % taps || !has_rows(plan, a[0], a[1], m->columns / taps) || !has_rows(plan, a[2], a[3], m->rows))
    return 0;
  if ((a[9] != FROM_BIAS && a[9] != FROM_SELF) || a[10] > RELU6) return 0;
  if (a[12] % 16 || !a[12] || a[12] > MOST_SIDE * MOST_SIDE) return 0; /* a strip ends with a vector, or with y */
  if (a[11] == NONE) return a[7] == 1 && a[8] == 1;
  return has_space(plan, a[11], PIXELS) && has_rows(plan, a[11], 0, m->columns) &&
         plan->buffers[a[11]].columns >= a[12];
}

#endif
