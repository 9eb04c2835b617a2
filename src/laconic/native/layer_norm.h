/* Layer norm with the deviation of a sample, as laconic.models.transformer.LayerNorm. */
#ifndef LACONIC_LAYER_NORM_H
#define LACONIC_LAYER_NORM_H

#include "mathematics.h"
#include "run.h"

INLINE vec roots_of(vec x) {
  for (uint32_t i = 0; i < LANES; i++) x[i] = root_of(x[i]);
  return x;
}

#define SUMS_ASIDE 4u /* of a sum, which are independent */

/* Sums over `rows` rows of x - mean, or of their squares. */
INLINE vec sum_rows(const float *x, size_t stride, uint32_t rows, vec mean, int squares) {
  vec sums[SUMS_ASIDE] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  uint32_t r = 0;
  for (; r + SUMS_ASIDE <= rows; r += SUMS_ASIDE)
    for (uint32_t i = 0; i < SUMS_ASIDE; i++) {
      vec v = load(x + (r + i) * stride) - mean;
      sums[i] += squares ? v * v : v;
    }
  for (; r < rows; r++) {
    vec v = load(x + r * stride) - mean;
    sums[0] += squares ? v * v : v;
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/* x, y, weight, bias: y = weight (x - mean) / deviation + bias over the rows of x; weight and bias, a number for each
   row, may be NONE. */
static void run_layer_norm(const laconic_run *run, const uint32_t *a) {
  table x = table_of(run, a[0], 0), y = table_of(run, a[1], 0);
  const float *weight = constants(&run->plan, a[2]), *bias = constants(&run->plan, a[3]);
  float rows = (float)x.rows, ratio = root_of((rows - 1.0f) / rows);
  for (uint32_t c = 0; c < x.columns; c += LANES) {
    vec mean = sum_rows(x.at + c, x.stride, x.rows, splat(0.0f), 0) * splat(1.0f / rows);
    vec variance = sum_rows(x.at + c, x.stride, x.rows, mean, 1) * splat(1.0f / rows);
    vec scale = splat(ratio) / roots_of(variance + splat(1e-12f));
    for (uint32_t r = 0; r < x.rows; r++) {
      vec v = (load(x.at + r * x.stride + c) - mean) * scale;
      if (weight) v *= splat(weight[r]);
      if (bias) v += splat(bias[r]);
      store(y.at + r * y.stride + c, v);
    }
  }
}

static int check_layer_norm(const plan_view *plan, const uint32_t *a) {
  if (!same_columns(plan, a[0], a[1])) return 0;
  uint32_t rows = plan->buffers[a[0]].rows;
  if (plan->buffers[a[1]].rows != rows) return 0;
  if (a[2] != NONE && !has_constants(plan, a[2], rows)) return 0;
  return a[3] == NONE || has_constants(plan, a[3], rows);
}

#endif
