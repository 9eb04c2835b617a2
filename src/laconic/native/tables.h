/* Tables of word vectors, a row for each word, looked up rather than multiplied by.

   TABLE         the values, row by row
   SPARSE_TABLE  where each row starts among the values (rows + 1 uint32), columns (uint16, as many as values, filled up
                 to a multiple of 4 bytes), values */
#ifndef LACONIC_TABLES_H
#define LACONIC_TABLES_H

#include "linear.h"
#include "run.h"

INLINE uint32_t bytes_of_width(uint32_t width) { return width == FLOAT32 ? 4 : width == BFLOAT16 ? 2 : 1; }

/* Value number `at` of a packed run of values. */
INLINE float value_at(const uint8_t *values, uint32_t width, float step, size_t at) {
  if (width == FLOAT32) return ((const float *)values)[at];
  if (width == INT8) return (float)((const int8_t *)values)[at] * step;
  union {
    uint32_t bits;
    float value;
  } wide = {(uint32_t)((const uint16_t *)values)[at] << 16};
  return wide.value;
}

typedef struct {
  const uint32_t *starts;
  const uint16_t *columns;
  const uint8_t *values;
} sparse_table;

INLINE sparse_table view_sparse_table(const plan_view *plan, const plan_matrix *m) {
  const uint8_t *data = in_arena(plan, m->at);
  size_t places = ((size_t)m->rows + 1) * 4;
  size_t non_zeros = ((const uint32_t *)data)[m->rows];
  return (sparse_table){(const void *)data, (const void *)(data + places), data + places + round_up(2 * non_zeros, 4)};
}

static int check_sparse_table(const plan_view *plan, const plan_matrix *m) {
  uint64_t places = ((uint64_t)m->rows + 1) * 4;
  if (m->columns > 65536 || m->bytes < places) return 0;
  sparse_table t = view_sparse_table(plan, m);
  uint64_t count = t.starts[m->rows];
  if (t.starts[0] || places + (2 * count + 3) / 4 * 4 + count * bytes_of_width(m->width) != m->bytes) return 0;
  for (uint32_t r = 0; r < m->rows; r++)
    if (t.starts[r] > t.starts[r + 1]) return 0;
  for (uint64_t i = 0; i < count; i++)
    if (t.columns[i] >= m->columns) return 0;
  return 1;
}

static int check_table(const plan_view *plan, const plan_matrix *m) {
  if (m->form == SPARSE_TABLE) return check_sparse_table(plan, m);
  return (uint64_t)m->rows * m->columns * bytes_of_width(m->width) == m->bytes;
}

static int check_any_matrix(const plan_view *plan, const plan_matrix *m) {
  const plan_header *h = plan->header;
  if (m->rows < 1 || m->columns < 1 || m->rows > 1u << 24 || m->columns > 1u << 24) return 0;
  if (m->form >= FORMS || m->width >= WIDTHS || m->at % PLAN_ALIGNMENT) return 0;
  if (m->at > h->arena_bytes || m->bytes > h->arena_bytes - m->at) return 0;
  if (m->bias != NONE && !has_constants(plan, m->bias, m->rows)) return 0;
  return m->form >= TABLE ? check_table(plan, m) : check_matrix(plan, m);
}

/* Column c of y becomes the vector of tokens[c], from a dense table. */
static void look_up_dense(const plan_view *plan, const plan_matrix *m, const int32_t *tokens, table y) {
  const uint8_t *data = in_arena(plan, m->at);
  for (uint32_t r = 0; r < m->columns; r++)
    for (uint32_t c = 0; c < y.columns; c++)
      y.at[r * y.stride + c] = value_at(data, m->width, m->step, (size_t)tokens[c] * m->columns + r);
}

static void look_up_sparse(const plan_view *plan, const plan_matrix *m, const int32_t *tokens, table y) {
  sparse_table t = view_sparse_table(plan, m);
  for (uint32_t c = 0; c < y.columns; c++)
    for (uint32_t i = t.starts[tokens[c]]; i < t.starts[tokens[c] + 1]; i++)
      y.at[t.columns[i] * y.stride + c] = value_at(t.values, m->width, m->step, i);
}

/* y = activation(scale * y + position), columns of padding included. */
static void finish_words(table y, uint32_t rows, uint32_t activation, float scale, const float *position) {
  if (scale == 1.0f && !position && activation == LINEARLY) return;
  for (uint32_t r = 0; r < rows; r++)
    for (uint32_t c = 0; c < y.columns; c += LANES) {
      vec v = load(y.at + r * y.stride + c) * splat(scale) + splat(position ? position[r] : 0.0f);
      store(y.at + r * y.stride + c, activation == RELU ? most(v, splat(0.0f)) : v);
    }
}

/* y, y_row, table, activation, scale (a float's bits), positions (MOST_TOKENS vectors, or NONE):
   y = activation(scale * vector of each caption's last word + vector of the position) */
static void run_embed(const laconic_run *run, const uint32_t *a) {
  const plan_matrix *m = run->plan.matrices + a[2];
  table y = table_of(run, a[0], a[1]);
  const float *positions = constants(&run->plan, a[5]);
  union {
    uint32_t bits;
    float value;
  } scale = {a[4]};
  memset(y.at, 0, m->columns * y.stride * sizeof(float));
  (m->form == TABLE ? look_up_dense : look_up_sparse)(&run->plan, m, run->tokens, y);
  finish_words(y, m->columns, a[3], scale.value, positions ? positions + (size_t)run->word * m->columns : NULL);
}

static int check_embed(const plan_view *plan, const uint32_t *a) {
  if (!has_matrix(plan, a[2], 1)) return 0;
  const plan_matrix *m = plan->matrices + a[2];
  if (m->rows < plan->header->vocabulary || !has_space(plan, a[0], ROWS) || !has_rows(plan, a[0], a[1], m->columns))
    return 0;
  return (a[3] == LINEARLY || a[3] == RELU) &&
         (a[5] == NONE || has_constants(plan, a[5], (uint64_t)MOST_TOKENS * m->columns));
}

#endif
