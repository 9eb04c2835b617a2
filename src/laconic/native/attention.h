/* Additive attention over the positions of an image: softmax_p(score . tanh(key_p + query)).

   tanh(a + b) = 1 - 2 / (1 + exp(2a) exp(2b)): exp(2a) is kept with each image, so that a step takes no exponential
   for a position, and four fractions share one division. What adds the same to all positions is left out. */
#ifndef LACONIC_ATTENTION_H
#define LACONIC_ATTENTION_H

#include "mathematics.h"
#include "run.h"

#define CAPTIONS_AT_ONCE 8u
#define MOST_FACTORED 40.0f /* |key| and |query| up to which exp(2 key) exp(2 query) keeps its digits */
#define MOST_UNBOUNDED \
  11.0f /* |key| + |query| up to which the product of four of 1 + exp(2 key) exp(2 query) is finite */
#define MOST_DENOMINATOR 1.0e9f /* the product of four is finite; beyond it tanh is 1 */

/* x, y: y = exp(2 x), LANES positions of all units after each other, so that they are read in a row; in the last row of
   y the largest |x| of each column */
static void run_factor(const laconic_run *run, const uint32_t *a) {
  table x = table_of(run, a[0], 0), y = table_of(run, a[1], 0);
  for (uint32_t p = 0; p < x.columns; p += LANES) {
    vec high = splat(0.0f);
    for (uint32_t u = 0; u < x.rows; u++) {
      vec key = load(x.at + u * x.stride + p);
      high = most(high, most(key, -key));
      store(y.at + (size_t)p * x.rows + u * LANES, exp_of(key + key));
    }
    store(y.at + x.rows * y.stride + p, high);
  }
}

static int check_factor(const plan_view *plan, const uint32_t *a) {
  return has_space(plan, a[0], POSITIONS) && has_space(plan, a[1], POSITIONS) &&
         plan->buffers[a[1]].rows == plan->buffers[a[0]].rows + 1;
}

typedef struct { /* the captions of one image that a panel holds, and what they look at */
  table keys, factors, values;
  const float *score;
  float *shares; /* CAPTIONS_AT_ONCE rows of weights over the positions, then those transposed */
  size_t stride; /* of a row of shares */
  uint32_t units, positions;
} image_seen;

/* Queries of captions: units rows, `stride` apart, each overwritten by what `ways` says of its column. */
typedef struct {
  const float *at;
  size_t stride;
  const uint8_t *ways;
} queries_of;

/* How a caption asks: by factors whose products need no bound, by factors, or by tanh itself. */
enum way { UNBOUNDED, BOUNDED, DIRECT };

INLINE vec denominator(vec key, float query, int bounded) {
  vec found = key * splat(query) + splat(1.0f);
  return bounded ? least(splat(MOST_DENOMINATOR), found) : found;
}

/* Adds score / (1 + factor of the key * factor of the query) of 4 units, at LANES positions. */
INLINE vec four_fractions(const vec *key, const float *w, const float *query, size_t stride, int bounded) {
  vec d0 = denominator(key[0], query[0], bounded), d1 = denominator(key[1], query[stride], bounded);
  vec d2 = denominator(key[2], query[2 * stride], bounded), d3 = denominator(key[3], query[3 * stride], bounded);
  vec n01 = splat(w[0]) * d1 + splat(w[1]) * d0, n23 = splat(w[2]) * d3 + splat(w[3]) * d2;
  vec d01 = d0 * d1, d23 = d2 * d3;
  return (n01 * d23 + n23 * d01) / (d01 * d23);
}

/* Scores of LANES positions, from p on, for `count` captions next to each other, into rows of shares. */
INLINE void factored_scores(const image_seen *seen, uint32_t p, const float *query, size_t stride, float *shares,
                            const uint32_t count, const int bounded) {
  vec total[CAPTIONS_AT_ONCE] = {{0}};
  const float *keys = seen->factors.at + (size_t)p * seen->units, *w = seen->score;
  uint32_t u = 0;
  for (; u + 4 <= seen->units; u += 4, keys += 4 * LANES, query += 4 * stride) {
    const vec key[4] = {load(keys), load(keys + LANES), load(keys + 2 * LANES), load(keys + 3 * LANES)};
    for (uint32_t c = 0; c < count; c++) total[c] += four_fractions(key, w + u, query + c, stride, bounded);
  }
  for (; u < seen->units; u++, keys += LANES, query += stride)
    for (uint32_t c = 0; c < count; c++) total[c] += splat(w[u]) / denominator(load(keys), query[c], bounded);
  for (uint32_t c = 0; c < count; c++) store(shares + c * seen->stride + p, splat(-2.0f) * total[c]);
}

/* The same by tanh itself, and with the constants that the factored form leaves out. */
static vec direct_scores(const image_seen *seen, uint32_t p, const float *query, size_t stride) {
  vec total = splat(0.0f);
  for (uint32_t u = 0; u < seen->units; u++) {
    vec sum = load(seen->keys.at + u * seen->keys.stride + p) + splat(query[u * stride]);
    total += splat(seen->score[u]) * tanh_of(sum);
  }
  return total;
}

/* exp(score - highest) of the positions of one caption, in place; columns that pad become 0. Returns 1 / their sum. */
static float exponentiate(float *shares, uint32_t positions) {
  float high = shares[0], sum = 0.0f;
  for (uint32_t p = 1; p < positions; p++) high = shares[p] > high ? shares[p] : high;
  for (uint32_t p = 0; p < positions; p += LANES) {
    store(shares + p, exp_of(load(shares + p) - splat(high)));
    for (uint32_t i = p; i < p + LANES; i++) {
      if (i >= positions) shares[i] = 0.0f;
      sum += shares[i];
    }
  }
  return 1.0f / sum;
}

/* Scores of all positions for captions that ask the same way; `first` is the first one's column, and row of shares. */
INLINE void scores_of_some(const image_seen *seen, queries_of q, uint32_t first, float *shares, const uint32_t count) {
  const float *query = q.at + first;
  for (uint32_t p = 0; p < seen->positions; p += LANES) switch (q.ways[first]) {
      case UNBOUNDED: factored_scores(seen, p, query, q.stride, shares, count, 0); break;
      case BOUNDED: factored_scores(seen, p, query, q.stride, shares, count, 1); break;
      default:
        for (uint32_t c = 0; c < count; c++)
          store(shares + c * seen->stride + p, direct_scores(seen, p, query + c, q.stride));
    }
}

/* Weights of the positions for `count` captions, from column `first` on: CAPTIONS_AT_ONCE for each position. */
static const float *weigh(const image_seen *seen, queries_of q, uint32_t first, uint32_t count) {
  float *turned = seen->shares + CAPTIONS_AT_ONCE * seen->stride;
  for (uint32_t c = 0, next; c < count; c = next) {
    for (next = c + 1; next < count && next < c + 3 && q.ways[first + next] == q.ways[first + c];) next++;
    float *shares = seen->shares + c * seen->stride;
    if (next - c == 3) scores_of_some(seen, q, first + c, shares, 3);
    else if (next - c == 2) scores_of_some(seen, q, first + c, shares, 2);
    else scores_of_some(seen, q, first + c, shares, 1);
  }
  memset(turned, 0, (size_t)seen->positions * CAPTIONS_AT_ONCE * sizeof(float));
  for (uint32_t c = 0; c < count; c++) {
    float *shares = seen->shares + c * seen->stride, scale = exponentiate(shares, seen->positions);
    for (uint32_t p = 0; p < seen->positions; p++) turned[p * CAPTIONS_AT_ONCE + c] = shares[p] * scale;
  }
  return turned;
}

#define ROWS_MIXED 8u /* as many sums as hide the latency of an addition */

/* Columns of `to` become `mixed`: all LANES where the row has room for them, since columns further right come later. */
INLINE void put(float *to, vec mixed, uint32_t count, int room) {
  if (room) {
    store(to, mixed);
    return;
  }
  for (uint32_t c = 0; c < count; c++) to[c] = mixed[c];
}

/* y = values * shares for at most LANES captions, in the columns from `first` on. */
static void mix(const image_seen *seen, const float *turned, table y, uint32_t first, uint32_t count) {
  const size_t stride = seen->values.stride;
  const int room = first + LANES <= y.stride;
  uint32_t row = 0;
  for (; row + ROWS_MIXED <= seen->values.rows; row += ROWS_MIXED) {
    const float *value = seen->values.at + row * stride;
    vec sum[ROWS_MIXED] = {{0}};
    for (uint32_t p = 0; p < seen->positions; p++) {
      vec share = load(turned + p * CAPTIONS_AT_ONCE);
      for (uint32_t r = 0; r < ROWS_MIXED; r++) sum[r] += share * splat(value[r * stride + p]);
    }
    for (uint32_t r = 0; r < ROWS_MIXED; r++) put(y.at + (row + r) * y.stride + first, sum[r], count, room);
  }
  for (; row < seen->values.rows; row++) {
    vec sum = splat(0.0f);
    for (uint32_t p = 0; p < seen->positions; p++)
      sum += load(turned + p * CAPTIONS_AT_ONCE) * splat(seen->values.at[row * stride + p]);
    put(y.at + row * y.stride + first, sum, count, room);
  }
}

/* The largest |key| of an image. */
static float largest_key(table factors) {
  const float *largest = factors.at + (factors.rows - 1) * factors.stride;
  float found = largest[0];
  for (uint32_t p = 1; p < factors.columns; p++) found = largest[p] > found ? largest[p] : found;
  return found;
}

/* Queries become their factors exp(2 query), but for columns that ask directly. `most_keys`: the largest |key| of what
   each column looks at. */
static void factor_queries(table query, const float *most_keys, uint8_t *ways) {
  for (uint32_t c = 0; c < query.columns; c += LANES) {
    vec high = splat(0.0f);
    for (uint32_t u = 0; u < query.rows; u++) {
      vec q = load(query.at + u * query.stride + c);
      high = most(high, most(q, -q));
    }
    ivec factored = {0};
    for (uint32_t i = 0; i < LANES; i++) {
      factored[i] = high[i] <= MOST_FACTORED && most_keys[c + i] <= MOST_FACTORED ? -1 : 0;
      ways[c + i] = !factored[i] ? DIRECT : high[i] + most_keys[c + i] <= MOST_UNBOUNDED ? UNBOUNDED : BOUNDED;
    }
    for (uint32_t u = 0; u < query.rows; u++) {
      float *at = query.at + u * query.stride + c;
      store(at, choose(factored, exp_of(load(at) + load(at)), load(at)));
    }
  }
}

/* Captions `first` to `last` of a panel, which look at one image. */
static void attend_image(const image_seen *seen, queries_of q, table y, uint32_t first, uint32_t last) {
  for (uint32_t c = first; c < last; c += CAPTIONS_AT_ONCE) {
    uint32_t count = last - c < CAPTIONS_AT_ONCE ? last - c : CAPTIONS_AT_ONCE;
    const float *turned = weigh(seen, q, c, count);
    for (uint32_t i = 0; i < count; i += LANES) mix(seen, turned + i, y, c + i, count - i < LANES ? count - i : LANES);
  }
}

/* query (units rows, overwritten), keys, factors, values, score (units constants), weights (what it works with), y,
 * y_row */
static void run_attend_additive(const laconic_run *run, const uint32_t *a) {
  table query = table_of(run, a[0], 0), y = table_of(run, a[6], a[7]), work = table_of(run, a[5], 0);
  uint8_t ways[PANEL];
  float most_keys[PANEL] = {0};
  for (uint32_t c = 0; c < run->columns; c++)
    most_keys[c] = c && run->image_of[c] == run->image_of[c - 1]
                       ? most_keys[c - 1]
                       : largest_key(table_of_image(run, a[2], 0, run->image_of[c]));
  factor_queries(query, most_keys, ways);
  queries_of q = {query.at, query.stride, ways};
  for (uint32_t first = 0, last; first < run->columns; first = last) {
    uint32_t image = run->image_of[first];
    for (last = first; last < run->columns && run->image_of[last] == image;) last++;
    image_seen seen = {table_of_image(run, a[1], 0, image),
                       table_of_image(run, a[2], 0, image),
                       table_of_image(run, a[3], 0, image),
                       constants(&run->plan, a[4]),
                       work.at,
                       work.stride,
                       query.rows,
                       0};
    seen.positions = seen.keys.columns;
    attend_image(&seen, q, y, first, last);
  }
}

static int check_attend_additive(const plan_view *plan, const uint32_t *a) {
  if (!has_space(plan, a[0], ROWS) || !has_space(plan, a[5], POSITIONS) || !has_space(plan, a[6], ROWS)) return 0;
  for (uint32_t i = 1; i <= 3; i++)
    if (!has_space(plan, a[i], POSITIONS) || !plan->buffers[a[i]].kept) return 0;
  uint32_t units = plan->buffers[a[0]].rows;
  return plan->buffers[a[1]].rows == units && plan->buffers[a[2]].rows == units + 1 &&
         has_rows(plan, a[6], a[7], plan->buffers[a[3]].rows) && has_constants(plan, a[4], units) &&
         plan->buffers[a[5]].rows >= 2 * CAPTIONS_AT_ONCE && a[5] != a[1] && a[5] != a[2] && a[5] != a[3];
}

#endif
