/* y = activation(W x + start), W sparse or dense: nine tenths of the time of a captioner. */
#ifndef LACONIC_LINEAR_H
#define LACONIC_LINEAR_H

#include "dense.h"
#include "logarithm.h"
#include "mathematics.h"
#include "run.h"
#include "sparse.h"

/* y += W x, for m->columns rows of x and m->rows of y. `columns` is rounded up to LANES, of which strides are
   multiples. What becomes of a column does not depend on how many there are. */
static void multiply(const plan_view *plan, const plan_matrix *m, const float *x, size_t x_stride, float *y,
                     size_t y_stride, uint32_t columns) {
  const uint8_t *at = in_arena(plan, m->at);
  if (m->form == SPARSE) multiply_sparse(m, at, x, x_stride, y, y_stride, columns);
  else multiply_dense(m, at, x, x_stride, y, y_stride, columns);
}

static int check_matrix(const plan_view *plan, const plan_matrix *m) {
  return m->form == SPARSE ? check_sparse(m, in_arena(plan, m->at)) : check_dense(m);
}

/* y starts as bias + image, the number that `images` has for the image of each column. */
static void begin_from_images(const float *bias, table images, const uint32_t *image_of, table y, uint32_t rows) {
  for (uint32_t c = 0; c < y.columns; c += LANES) {
    uint32_t of[LANES], others = 0;
    for (uint32_t i = 0; i < LANES; i++) { /* columns that pad: the last image once more */
      of[i] = image_of[c + i < y.columns ? c + i : y.columns - 1];
      others |= of[i] ^ of[0];
    }
    const float *from = images.at;
    float *to = y.at + c;
    for (uint32_t r = 0; r < rows; r++, from += images.stride, to += y.stride) {
      vec found = splat(from[of[0]]);
      if (others)
        for (uint32_t i = 1; i < LANES; i++) found[i] = from[of[i]];
      store(to, found + splat(bias ? bias[r] : 0.0f));
    }
  }
}

/* y starts as the bias, alone or added to what y was before, or to the column of each caption's image. */
static void begin(const laconic_run *run, const plan_matrix *m, table y, uint32_t start, uint32_t image_buffer) {
  const float *bias = constants(&run->plan, m->bias);
  if (start == FROM_SELF && !bias) return;
  if (start == FROM_IMAGE) {
    begin_from_images(bias, table_of(run, image_buffer, 0), run->image_of, y, m->rows);
    return;
  }
  for (uint32_t r = 0; r < m->rows; r++) {
    float *to = y.at + r * y.stride;
    vec first = splat(bias ? bias[r] : 0.0f);
    for (uint32_t c = 0; c < y.columns; c += LANES) store(to + c, start == FROM_SELF ? load(to + c) + first : first);
  }
}

static void activate(float *y, size_t stride, uint32_t rows, uint32_t columns, uint32_t activation) {
  if (activation == LINEARLY) return;
  for (uint32_t r = 0; r < rows; r++)
    for (uint32_t c = 0; c < columns; c += LANES) {
      vec v = load(y + r * stride + c);
      if (activation == LOG_RELATION) v = logarithm_of(choose(v < splat(1e-6f), splat(1e-6f), v));
      else v = most(splat(0.0f), v); /* in this order NaN stays, here and below */
      if (activation == RELU6) v = least(splat(6.0f), v);
      store(y + r * stride + c, v);
    }
}

/* x, x_row, y, y_row, matrix, activation, start, image buffer */
static void run_linear(const laconic_run *run, const uint32_t *a) {
  const plan_matrix *m = run->plan.matrices + a[4];
  table x = table_of(run, a[0], a[1]), y = table_of(run, a[2], a[3]);
  begin(run, m, y, a[6], a[7]);
  multiply(&run->plan, m, x.at, x.stride, y.at, y.stride, y.columns);
  activate(y.at, y.stride, m->rows, y.columns, a[5]);
}

static int check_linear(const plan_view *plan, const uint32_t *a) {
  if (!has_matrix(plan, a[4], 0)) return 0;
  const plan_matrix *m = plan->matrices + a[4];
  if (!has_rows(plan, a[0], a[1], m->columns) || !has_rows(plan, a[2], a[3], m->rows)) return 0;
  if (!same_columns(plan, a[0], a[2]) || a[5] >= ACTIVATIONS || a[6] >= STARTS) return 0;
  if (a[0] == a[2] && a[1] < a[3] + m->rows && a[3] < a[1] + m->columns) return 0; /* would read what it writes */
  if (a[6] != FROM_IMAGE) return a[7] == NONE;
  return has_space(plan, a[2], ROWS) && has_space(plan, a[7], IMAGES) && has_rows(plan, a[7], 0, m->rows);
}

#endif
