/* Word vectors, LSTM, GRU, gated linear units. */
#ifndef LACONIC_RECURRENT_H
#define LACONIC_RECURRENT_H

#include "mathematics.h"
#include "run.h"
#include "tables.h"

#define MOST_GATE 29.0f /* |argument| of a gate; beyond it a sigmoid is 0 or 1, and the product of three is finite */

/* exp(-x), bounded so that products of three of 1 + exp(-x) stay finite. NaN stays NaN. */
INLINE vec exp_of_gate(vec x) { return exp_rough(most(splat(-MOST_GATE), least(splat(MOST_GATE), -x))); }

INLINE int rows_of_captions(const plan_view *plan, uint32_t buffer, uint32_t row, uint32_t rows) {
  return has_space(plan, buffer, ROWS) && has_rows(plan, buffer, row, rows);
}

/* x, x_row, y, y_row: at the first word, all rows of x from x_row on, of each caption's image, go to y */
static void run_initial(const laconic_run *run, const uint32_t *a) {
  if (run->word > 0) return;
  table x = table_of(run, a[0], a[1]), y = table_of(run, a[2], a[3]);
  for (uint32_t r = 0; r < x.rows; r++)
    for (uint32_t c = 0; c < y.columns; c++) y.at[r * y.stride + c] = x.at[r * x.stride + run->image_of[c]];
}

static int check_initial(const plan_view *plan, const uint32_t *a) {
  return has_space(plan, a[0], IMAGES) && has_rows(plan, a[0], a[1], 1) &&
         rows_of_captions(plan, a[2], a[3], plan->buffers[a[0]].rows - a[1]);
}

/* gates (input, forget, candidate, output), cell, hidden, hidden_row:
     cell = sigmoid(f) cell + sigmoid(i) tanh(g), hidden = sigmoid(o) tanh(cell)
   With I = exp(-i) and so on, G = exp(-2g): the first is (cell (1 + I)(1 + G) + (1 - G)(1 + F)) / (1 + I)(1 + G)(1 +
   F), one division instead of three. */
static void run_lstm(const laconic_run *run, const uint32_t *a) {
  table gates = table_of(run, a[0], 0), cells = table_of(run, a[1], 0), hidden = table_of(run, a[2], a[3]);
  const size_t stride = gates.stride, gate = cells.rows * stride;
  const vec one = splat(1.0f);
  for (size_t at = 0; at < gate; at += LANES) {
    const float *from = gates.at + at;
    vec input = one + exp_of_gate(load(from)), forget = one + exp_of_gate(load(from + gate));
    vec g = load(from + 2 * gate), candidate = exp_of_gate(g + g), output = one + exp_of_gate(load(from + 3 * gate));
    vec both = input * (one + candidate), cell = load(cells.at + at);
    cell = (cell * both + (one - candidate) * forget) / (both * forget);
    store(cells.at + at, cell);
    vec bent = exp_of_gate(cell + cell);
    store(hidden.at + at, (one - bent) / (output * (one + bent)));
  }
}

static int check_lstm(const plan_view *plan, const uint32_t *a) {
  if (!has_space(plan, a[0], ROWS) || !has_space(plan, a[1], ROWS)) return 0;
  uint32_t rows = plan->buffers[a[1]].rows; /* at most MOST_ROWS: four times as many can be counted */
  return plan->buffers[a[0]].rows == 4 * rows && rows_of_captions(plan, a[2], a[3], rows);
}

/* gates (reset, update), hidden, hidden_row, y, y_row: y = sigmoid(reset) hidden. As many rows as half the gates. */
static void run_gru_reset(const laconic_run *run, const uint32_t *a) {
  table gates = table_of(run, a[0], 0), hidden = table_of(run, a[1], a[2]), y = table_of(run, a[3], a[4]);
  for (size_t at = 0; at < gates.rows / 2 * gates.stride; at += LANES)
    store(y.at + at, load(hidden.at + at) / (splat(1.0f) + exp_of_gate(load(gates.at + at))));
}

static int check_gru_reset(const plan_view *plan, const uint32_t *a) {
  if (!has_space(plan, a[0], ROWS) || plan->buffers[a[0]].rows % 2) return 0;
  uint32_t rows = plan->buffers[a[0]].rows / 2;
  return rows_of_captions(plan, a[1], a[2], rows) && rows_of_captions(plan, a[3], a[4], rows);
}

/* gates (reset, update), candidate, hidden, hidden_row: hidden = u hidden + (1 - u) tanh(candidate), u =
   sigmoid(update) as (hidden (1 + C) + U (1 - C)) / (1 + U)(1 + C), with U = exp(-update), C = exp(-2 candidate) */
static void run_gru_update(const laconic_run *run, const uint32_t *a) {
  table gates = table_of(run, a[0], 0), candidate = table_of(run, a[1], 0), hidden = table_of(run, a[2], a[3]);
  const size_t gate = gates.rows / 2 * gates.stride;
  const vec one = splat(1.0f);
  for (size_t at = 0; at < gate; at += LANES) {
    vec update = exp_of_gate(load(gates.at + gate + at)), x = load(candidate.at + at), bent = exp_of_gate(x + x);
    vec held = load(hidden.at + at) * (one + bent) + update * (one - bent);
    store(hidden.at + at, held / ((one + update) * (one + bent)));
  }
}

static int check_gru_update(const plan_view *plan, const uint32_t *a) {
  if (!has_space(plan, a[0], ROWS) || plan->buffers[a[0]].rows % 2) return 0;
  uint32_t rows = plan->buffers[a[0]].rows / 2;
  return rows_of_captions(plan, a[1], 0, rows) && rows_of_captions(plan, a[2], a[3], rows);
}

/* x (information, gate), y, y_row: y = information sigmoid(gate). As many rows as half of x. */
static void run_glu(const laconic_run *run, const uint32_t *a) {
  table x = table_of(run, a[0], 0), y = table_of(run, a[1], a[2]);
  uint32_t half = x.rows / 2;
  for (uint32_t r = 0; r < half; r++)
    for (uint32_t c = 0; c < x.columns; c += LANES) {
      const float *from = x.at + r * x.stride + c;
      store(y.at + r * y.stride + c, load(from) / (splat(1.0f) + exp_of_gate(load(from + half * x.stride))));
    }
}

static int check_glu(const plan_view *plan, const uint32_t *a) {
  if (!same_columns(plan, a[0], a[1]) || plan->buffers[a[0]].rows % 2) return 0;
  return has_rows(plan, a[1], a[2], plan->buffers[a[0]].rows / 2);
}

#endif
