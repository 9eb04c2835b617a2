/* The k best words of each caption in the making, and their log-probabilities. */
#ifndef LACONIC_BEST_H
#define LACONIC_BEST_H

#include "mathematics.h"
#include "run.h"

#define BLOCK_ROWS 8u

typedef struct { /* of each slot k, best first */
  float *log_probs;
  int32_t *ids;
} best_words;

/* Puts a word among the `held` best of a list of at most k, behind its equals; the list stays sorted. */
INLINE void insert_word(float *values, int32_t *ids, uint32_t *held, uint32_t k, float value, int32_t id) {
  uint32_t at = *held < k ? (*held)++ : k - 1;
  for (; at > 0 && values[at - 1] < value; at--) values[at] = values[at - 1], ids[at] = ids[at - 1];
  values[at] = value, ids[at] = id;
}

/* Largest of BLOCK_ROWS rows, or fewer. */
INLINE vec highest(const float *from, size_t stride, uint32_t rows) {
  vec found = load(from);
  for (uint32_t r = 1; r < rows; r++) found = most(load(from + r * stride), found);
  return found;
}

/* The k largest of LANES columns of `logits`, from `column` on, into lists that begin at `slot`. */
static void largest_logits(table logits, uint32_t column, uint32_t count, uint32_t k, best_words best, uint32_t slot) {
  uint32_t held[LANES] = {0}, rows = logits.rows;
  float least_kept[LANES];
  for (uint32_t c = 0; c < LANES; c++) least_kept[c] = c < count ? -__builtin_inff() : __builtin_inff();
  for (uint32_t first = 0; first < rows; first += BLOCK_ROWS) {
    const float *at = logits.at + first * logits.stride + column;
    uint32_t some = rows - first < BLOCK_ROWS ? rows - first : BLOCK_ROWS;
    vec high = highest(at, logits.stride, some);
    int any = 0;
    for (uint32_t c = 0; c < LANES; c++) any |= high[c] > least_kept[c];
    if (!any && first >= k) continue;
    for (uint32_t c = 0; c < count; c++) {
      float *values = best.log_probs + (size_t)(slot + c) * k;
      int32_t *ids = best.ids + (size_t)(slot + c) * k;
      for (uint32_t r = 0; r < some; r++) {
        float value = at[r * logits.stride + c];
        if (held[c] == k && !(value > values[k - 1])) continue;
        insert_word(values, ids, held + c, k, value, (int32_t)(first + r));
      }
      if (held[c] == k) least_kept[c] = values[k - 1];
    }
  }
}

/* log(sum(exp(logits - highest))) of LANES columns, summed in blocks, which keeps the digits. */
static void log_sums(table logits, uint32_t column, vec high, float *to) {
  vec total = splat(0.0f);
  for (uint32_t first = 0; first < logits.rows; first += 64) {
    uint32_t end = logits.rows - first < 64 ? logits.rows : first + 64;
    vec sum = splat(0.0f);
    for (uint32_t r = first; r < end; r++) sum += exp_of(load(logits.at + r * logits.stride + column) - high);
    total += sum;
  }
  for (uint32_t c = 0; c < LANES; c++) to[c] = total[c] > 0.0f ? (float)log_of(total[c]) : __builtin_nanf("");
}

/* Best words of every column of `logits` into the lists from `slot` on. The log-probability of a column that holds
   something else than numbers, or plus infinity, is not a number. */
static void find_best(table logits, uint32_t k, best_words best, uint32_t slot) {
  for (uint32_t column = 0; column < logits.columns; column += LANES) {
    uint32_t count = logits.columns - column < LANES ? logits.columns - column : LANES;
    float sums[LANES];
    largest_logits(logits, column, count, k, best, slot + column);
    vec high = splat(0.0f);
    for (uint32_t c = 0; c < count; c++) high[c] = best.log_probs[(size_t)(slot + column + c) * k];
    log_sums(logits, column, high, sums);
    for (uint32_t c = 0; c < count; c++) {
      float *values = best.log_probs + (size_t)(slot + column + c) * k;
      for (uint32_t i = 0; i < k; i++) values[i] = (values[i] - high[c]) - sums[c];
    }
  }
}

#endif
