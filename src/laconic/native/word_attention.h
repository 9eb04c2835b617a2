/* Attention of captions in the making to their own words so far.

   Keys and values of a word are kept where they were computed, row-major: a slot of the search for each caption. When
   captions are reordered nothing moves, since `ancestors` says in which slot each was at every word. */
#ifndef LACONIC_WORD_ATTENTION_H
#define LACONIC_WORD_ATTENTION_H

#include "dot_attention.h"
#include "mathematics.h"
#include "run.h"

/* Sum of a[i] b[i]. */
INLINE float product_of(const float *a, const float *b, uint32_t count) {
  vec first = splat(0.0f), second = splat(0.0f);
  uint32_t i = 0;
  for (; i + 2 * LANES <= count; i += 2 * LANES) {
    first += load(a + i) * load(b + i);
    second += load(a + i + LANES) * load(b + i + LANES);
  }
  float total = sum_of(first + second);
  for (; i < count; i++) total += a[i] * b[i];
  return total;
}

/* Numbers to exp(number - the largest), divided by their sum; `numbers` has room for a last vector. */
static void softmax(float *numbers, uint32_t count) {
  float high = numbers[0], sum = 0.0f;
  for (uint32_t i = 1; i < count; i++) high = numbers[i] > high ? numbers[i] : high;
  for (uint32_t i = 0; i < count; i += LANES) store(numbers + i, exp_of(load(numbers + i) - splat(high)));
  for (uint32_t i = 0; i < count; i++) sum += numbers[i];
  for (uint32_t i = 0; i < count; i++) numbers[i] /= sum;
}

/* y[i] = sum over words of weights[word] * rows[word][i] */
INLINE void mix_words(const float *const *rows, size_t offset, const float *weights, uint32_t words, float *y,
                      uint32_t count) {
  uint32_t i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES) {
    vec sums[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
    for (uint32_t w = 0; w < words; w++)
      for (uint32_t k = 0; k < 4; k++) sums[k] += splat(weights[w]) * load(rows[w] + offset + i + k * LANES);
    for (uint32_t k = 0; k < 4; k++) store(y + i + k * LANES, sums[k]);
  }
  for (; i < count; i++) {
    y[i] = 0.0f;
    for (uint32_t w = 0; w < words; w++) y[i] += weights[w] * rows[w][offset + i];
  }
}

/* query, query_row, words, words_row, y, y_row, width, heads, kept: `words` are `width` rows of keys of the last word,
   then as many of values; they are added to `kept`, and each caption looks at what it has there. */
static void run_attend_words(const laconic_run *run, const uint32_t *a) {
  table query = table_of(run, a[0], a[1]), now = table_of(run, a[2], a[3]), y = table_of(run, a[4], a[5]);
  uint32_t width = a[6], size = width / a[7], words = run->word + 1;
  float scale = 1.0f / __builtin_sqrtf((float)size), asked[MOST_WIDTH], found[MOST_WIDTH];
  const float *rows[MOST_TOKENS];
  float weights[MOST_TOKENS + LANES] = {0};
  for (uint32_t c = 0; c < query.columns; c++) {
    uint32_t slot = run->panel * PANEL + c;
    float *kept = kept_word(run, a[8], run->word, slot);
    for (uint32_t r = 0; r < 2 * width; r++) kept[r] = now.at[r * now.stride + c];
    for (uint32_t r = 0; r < width; r++) asked[r] = query.at[r * query.stride + c] * scale;
    for (uint32_t w = 0; w < words; w++)
      rows[w] = kept_word(run, a[8], w, run->ancestors[(size_t)w * run->slots + slot]);
    for (uint32_t h = 0; h < a[7]; h++) {
      for (uint32_t w = 0; w < words; w++) weights[w] = product_of(asked + h * size, rows[w] + h * size, size);
      softmax(weights, words);
      mix_words(rows, width + h * size, weights, words, found + h * size, size);
    }
    for (uint32_t r = 0; r < width; r++) y.at[r * y.stride + c] = found[r];
  }
}

static int check_attend_words(const plan_view *plan, const uint32_t *a) {
  uint32_t width = a[6];
  if (!sound_heads(width, a[7])) return 0;
  return has_space(plan, a[0], ROWS) && has_rows(plan, a[0], a[1], width) && has_space(plan, a[2], ROWS) &&
         has_rows(plan, a[2], a[3], 2 * width) && has_space(plan, a[4], ROWS) && has_rows(plan, a[4], a[5], width) &&
         has_space(plan, a[8], WORDS) && has_rows(plan, a[8], 0, 2 * width);
}

#endif
