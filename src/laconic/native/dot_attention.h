/* Attention with scaled products over the positions of an image: laconic.models.transformer.Attention.

   Everything is vectorised over those that ask, the columns of the query: regions of an image, or captions that look
   at the same image. Nothing is summed across a vector, and each column's numbers are independent of its neighbours. */
#ifndef LACONIC_DOT_ATTENTION_H
#define LACONIC_DOT_ATTENTION_H

#include "mathematics.h"
#include "run.h"

#define MOST_SEEN 1024u /* positions of an image */
#define ASIDE 8u        /* sums that are made at a time, which are independent */

typedef struct {      /* one head of one image */
  table keys, values; /* from the first row of the head on; a column for each position */
  uint32_t size;      /* rows of the head */
  const float *bias;  /* on the logits, a row for each position, a column for each that asks; or NULL */
  size_t bias_stride;
} head_seen;

/* bias and keys^T query / sqrt(size) for each position, LANES numbers each. */
static void ask_positions(const head_seen *seen, const float *query, size_t stride, float *logits) {
  vec scale = splat(1.0f / root_of((float)seen->size));
  for (uint32_t p = 0; p < seen->keys.columns; p += ASIDE) {
    vec sums[ASIDE];
    for (uint32_t i = 0; i < ASIDE; i++) sums[i] = splat(0.0f);
    for (uint32_t k = 0; k < seen->size; k++) {
      vec q = load(query + k * stride);
      const float *keys = seen->keys.at + k * seen->keys.stride + p; /* rows are padded to 16 */
      for (uint32_t i = 0; i < ASIDE; i++) sums[i] += splat(keys[i]) * q;
    }
    for (uint32_t i = 0; i < ASIDE && p + i < seen->keys.columns; i++) {
      vec logit = sums[i] * scale;
      if (seen->bias) logit += load(seen->bias + (p + i) * seen->bias_stride);
      store(logits + (p + i) * LANES, logit);
    }
  }
}

/* Logits to weights, which still have to be divided by their sum, which is returned. */
static vec weigh_positions(float *logits, uint32_t positions) {
  vec high = load(logits), sum = splat(0.0f);
  for (uint32_t p = 1; p < positions; p++) high = most(load(logits + p * LANES), high);
  for (uint32_t p = 0; p < positions; p++) {
    vec weight = exp_of(load(logits + p * LANES) - high);
    store(logits + p * LANES, weight);
    sum += weight;
  }
  return sum;
}

/* `rows` rows of values times weights, from row k of the head on. */
INLINE void mix_positions(const head_seen *seen, uint32_t k, uint32_t rows, const float *weights, vec *sums) {
  const float *values = seen->values.at + k * seen->values.stride;
  for (uint32_t i = 0; i < rows; i++) sums[i] = splat(0.0f);
  for (uint32_t p = 0; p < seen->values.columns; p++) {
    vec weight = load(weights + p * LANES);
    for (uint32_t i = 0; i < rows; i++) sums[i] += splat(values[i * seen->values.stride + p]) * weight;
  }
}

/* What LANES columns of `query` find, into those columns of y where `mine` is set. */
static void attend_columns(const head_seen *seen, const float *query, size_t query_stride, float *y, size_t y_stride,
                           ivec mine) {
  float weights[MOST_SEEN * LANES];
  ask_positions(seen, query, query_stride, weights);
  vec share = splat(1.0f) / weigh_positions(weights, seen->keys.columns), found[ASIDE];
  for (uint32_t k = 0; k < seen->size;) {
    uint32_t rows = seen->size - k < ASIDE ? 1 : ASIDE;
    if (rows == ASIDE) mix_positions(seen, k, ASIDE, weights, found);
    else mix_positions(seen, k, 1, weights, found);
    for (uint32_t i = 0; i < rows; i++, k++)
      store(y + k * y_stride, choose(mine, found[i] * share, load(y + k * y_stride)));
  }
}

/* Columns from..to - 1 of a vector. */
INLINE ivec lanes_between(uint32_t from, uint32_t to) {
  ivec mine;
  for (uint32_t i = 0; i < LANES; i++) mine[i] = i >= from && i < to ? -1 : 0;
  return mine;
}

INLINE table rows_from(table of, uint32_t row) {
  return (table){of.at + row * of.stride, of.rows, of.columns, of.stride};
}

/* query, query_row, seen, seen_row, y, y_row, width, heads, relation, relation_row, constant: regions of an image look
   at each other. `seen` are `width` rows of keys, then as many of values; of `relation` each head has a row, and column
   j P + i is the bias of region i on looking at region j. It is a buffer of PAIRS, or lies in the arena at `constant`:
   one of the two is NONE, or both are, and there is no bias. */
static void run_attend_related(const laconic_run *run, const uint32_t *a) {
  table query = table_of(run, a[0], a[1]), seen = table_of(run, a[2], a[3]), y = table_of(run, a[4], a[5]);
  uint32_t size = a[6] / a[7], count = query.columns;
  size_t pairs = (size_t)count * count;
  table relation = {(float *)constants(&run->plan, a[10]), a[7], count, pairs};
  if (a[8] != NONE) relation = table_of(run, a[8], a[9]);
  for (uint32_t h = 0; h < a[7]; h++) {
    head_seen head = {rows_from(seen, h * size), rows_from(seen, a[6] + h * size), size, NULL, count};
    table from = rows_from(query, h * size), to = rows_from(y, h * size);
    for (uint32_t c = 0; c < count; c += LANES) {
      head.bias = relation.at ? relation.at + h * relation.stride + c : NULL;
      attend_columns(&head, from.at + c, from.stride, to.at + c, to.stride, lanes_between(0, LANES));
    }
  }
}

/* query, query_row, seen, seen_row, y, y_row, width, heads: captions look at their images. */
static void run_attend_positions(const laconic_run *run, const uint32_t *a) {
  table query = table_of(run, a[0], a[1]), y = table_of(run, a[4], a[5]);
  uint32_t size = a[6] / a[7];
  for (uint32_t first = 0, last; first < query.columns; first = last) {
    for (last = first; last < query.columns && run->image_of[last] == run->image_of[first] && last - first < LANES;)
      last++;
    table seen = table_of_image(run, a[2], a[3], run->image_of[first]);
    uint32_t start = first < query.stride - LANES ? first : (uint32_t)query.stride - LANES;
    ivec mine = lanes_between(first - start, last - start);
    for (uint32_t h = 0; h < a[7]; h++) {
      head_seen head = {rows_from(seen, h * size), rows_from(seen, a[6] + h * size), size, NULL, 0};
      table from = rows_from(query, h * size), to = rows_from(y, h * size);
      attend_columns(&head, from.at + start, from.stride, to.at + start, to.stride, mine);
    }
  }
}

INLINE int sound_heads(uint32_t width, uint32_t heads) {
  return heads >= 1 && width >= 1 && width <= 1u << 24 && width % heads == 0;
}

/* Arguments 0 to 7 of the operations above: queries and results in one space, keys and values in POSITIONS. */
static int check_heads(const plan_view *plan, const uint32_t *a, uint32_t space) {
  uint32_t width = a[6];
  if (!sound_heads(width, a[7]) || plan->header->positions > MOST_SEEN) return 0;
  return has_space(plan, a[0], space) && has_rows(plan, a[0], a[1], width) && has_space(plan, a[2], POSITIONS) &&
         has_rows(plan, a[2], a[3], 2 * width) && has_space(plan, a[4], space) && has_rows(plan, a[4], a[5], width);
}

static int check_attend_related(const plan_view *plan, const uint32_t *a) {
  uint32_t positions = plan->header->positions;
  if (!check_heads(plan, a, POSITIONS)) return 0;
  if (a[10] == NONE) return a[8] == NONE || (has_space(plan, a[8], PAIRS) && has_rows(plan, a[8], a[9], a[7]));
  /* the last vector of a row reaches behind it */
  return a[8] == NONE && plan->header->side &&
         has_constants(plan, a[10], (uint64_t)a[7] * positions * positions + PLAN_ALIGNMENT / 4);
}

static int check_attend_positions(const plan_view *plan, const uint32_t *a) {
  return check_heads(plan, a, ROWS) && plan->buffers[a[2]].kept;
}

#endif
