/* The k best words of each caption in the making, and their log-probabilities. */
#ifndef LACONIC_BEST_H
#define LACONIC_BEST_H

#include "mathematics.h"
#include "run.h"

#define BLOCK_ROWS 16u

typedef struct { /* of each slot k, best first; minus infinity where fewer are possible */
  float *log_probs;
  int32_t *ids;
  id_range *possible; /* of each slot */
} best_words;

/* Puts a word among the `held` best of a list of at most k, behind its equals; the list stays sorted. */
INLINE void insert_word(float *values, int32_t *ids, uint32_t *held, uint32_t k, float value, int32_t id) {
  uint32_t at = *held < k ? (*held)++ : k - 1;
  for (; at > 0 && values[at - 1] < value; at--) values[at] = values[at - 1], ids[at] = ids[at - 1];
  values[at] = value, ids[at] = id;
}

/* Largest of BLOCK_ROWS rows, or fewer. */
INLINE vec highest(const float *from, size_t stride, uint32_t rows) {
  vec found = load(from), other = found;
  if (rows == BLOCK_ROWS) { /* known beforehand: a loop that the compiler unrolls */
    for (uint32_t r = 0; r < BLOCK_ROWS; r += 2) {
      found = most(load(from + r * stride), found);
      other = most(load(from + (r + 1) * stride), other);
    }
    return most(other, found);
  }
  for (uint32_t r = 1; r < rows; r++) found = most(load(from + r * stride), found);
  return found;
}

/* Whether a comparison holds in any lane. */
INLINE int holds_anywhere(ivec where) {
  typedef int64_t pairs __attribute__((vector_size(4 * LANES)));
  pairs both = (pairs)where;
  int64_t found = both[0];
  for (uint32_t i = 1; i < LANES / 2; i++) found |= both[i];
  return found != 0;
}

typedef struct {  /* LANES columns, while their rows are read */
  vec least_kept; /* of the k best so far; minus infinity until there are k */
  vec reference;  /* the highest so far */
  vec total;      /* sum of exp(logit - reference) */
  uint32_t held[LANES];
  int short_of_words; /* some column has fewer than k so far */
} columns_read;

/* Words `first` on of one column, whose logits lie `stride` apart, among the k best that are possible. Returns the
   least of those. */
static float keep_best(const float *at, size_t stride, int32_t first, uint32_t rows, uint32_t k, float *values,
                       int32_t *ids, uint32_t *held, id_range possible) {
  for (int32_t id = first; id < first + (int32_t)rows; id++, at += stride) {
    if (id < possible.first || id > possible.last) continue;
    if (*held < k || *at > values[k - 1]) insert_word(values, ids, held, k, *at, id);
  }
  return *held == k ? values[k - 1] : -__builtin_inff();
}

/* Adds rows to the sums. What lies 80 below the highest adds nothing. */
INLINE void add_exponentials(columns_read *read, const float *at, size_t stride, uint32_t rows, vec high) {
  const vec low = splat(-80.0f);
  vec reference = most(high, read->reference), even = splat(0.0f), odd = splat(0.0f);
  uint32_t r = 0;
  for (; r + 2 <= rows; r += 2, at += 2 * stride) {
    even += exp_rough(most(low, load(at) - reference));
    odd += exp_rough(most(low, load(at + stride) - reference));
  }
  if (r < rows) even += exp_rough(most(low, load(at) - reference));
  read->total = read->total * exp_rough(most(low, read->reference - reference)) + (even + odd);
  read->reference = reference;
}

/* Rows `first` on, of LANES columns of which `count` are captions, whose lists of words begin at `slot`. */
static void read_block(columns_read *read, const float *at, size_t stride, uint32_t first, uint32_t rows, uint32_t k,
                       best_words best, uint32_t slot, uint32_t count) {
  vec high = highest(at, stride, rows);
  if (read->short_of_words || holds_anywhere(high > read->least_kept)) {
    read->short_of_words = 0;
    for (uint32_t c = 0; c < count; c++) {
      if (read->held[c] == k && !(high[c] > read->least_kept[c])) continue;
      size_t list = (size_t)(slot + c) * k;
      read->least_kept[c] = keep_best(at + c, stride, (int32_t)first, rows, k, best.log_probs + list, best.ids + list,
                                      read->held + c, best.possible[slot + c]);
      read->short_of_words |= read->held[c] < k;
    }
  }
  add_exponentials(read, at, stride, rows, high);
}

/* Logits of the `held` best words of a column become log-probabilities. */
static void normalise(float *values, int32_t *ids, uint32_t held, uint32_t k, float reference, float total) {
  float sum = total > 0.0f ? (float)log_of(total) : __builtin_nanf("");
  for (uint32_t i = 0; i < held; i++) values[i] = (values[i] - reference) - sum;
  for (uint32_t i = held; i < k; i++) values[i] = sum == sum ? -__builtin_inff() : sum, ids[i] = 0;
}

/* Best words of every column of `logits`, at most PANEL, into the lists from `slot` on; logits are read once, block by
   block. The log-probability of a column that holds something else than numbers, or plus infinity, is not a number. */
static void find_best(table logits, uint32_t k, best_words best, uint32_t slot) {
  columns_read read[PANEL / LANES] = {0};
  for (uint32_t column = 0; column < logits.columns; column += LANES) {
    columns_read *r = read + column / LANES;
    r->reference = splat(-3.0e38f), r->least_kept = splat(-__builtin_inff()), r->short_of_words = 1;
    for (uint32_t c = logits.columns - column; c < LANES; c++) r->least_kept[c] = __builtin_inff(); /* padding */
  }
  for (uint32_t first = 0; first < logits.rows; first += BLOCK_ROWS) {
    uint32_t rows = logits.rows - first < BLOCK_ROWS ? logits.rows - first : BLOCK_ROWS;
    for (uint32_t column = 0; column < logits.columns; column += LANES) {
      uint32_t count = logits.columns - column < LANES ? logits.columns - column : LANES;
      const float *at = logits.at + first * logits.stride + column;
      read_block(read + column / LANES, at, logits.stride, first, rows, k, best, slot + column, count);
    }
  }
  for (uint32_t c = 0; c < logits.columns; c++) {
    const columns_read *r = read + c / LANES;
    size_t list = (size_t)(slot + c) * k;
    normalise(best.log_probs + list, best.ids + list, r->held[c % LANES], k, r->reference[c % LANES],
              r->total[c % LANES]);
  }
}

#endif
