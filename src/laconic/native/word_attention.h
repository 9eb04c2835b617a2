/* Attention of captions in the making to their own words so far.

   Keys and values of a word are kept where they were computed, row-major: a slot of the search for each caption. When
   captions are reordered nothing moves, since `ancestors` says in which slot each was at every word. */
#ifndef LACONIC_WORD_ATTENTION_H
#define LACONIC_WORD_ATTENTION_H

#include "dot_attention.h"
#include "mathematics.h"
#include "run.h"
#include "transpose.h"

#define MOST_HEAD 1024u /* numbers per word of one head */

typedef struct {                   /* what a caption sees */
  const float *words[MOST_TOKENS]; /* keys, then values of each */
  uint32_t count;
} words_seen;

/* Products of `query` with the keys of LANES words from `first` on, `size` numbers from `offset` on; behind the last
   word it is that one again. */
static vec ask_words(const words_seen *seen, uint32_t first, size_t offset, const float *query, uint32_t size) {
  const float *keys[LANES];
  vec sums[LANES], total = splat(0.0f);
  for (uint32_t i = 0; i < LANES; i++) {
    keys[i] = seen->words[first + i < seen->count ? first + i : seen->count - 1] + offset;
    sums[i] = splat(0.0f);
  }
  uint32_t k = 0;
  for (; k + LANES <= size; k += LANES) {
    vec q = load(query + k);
    for (uint32_t i = 0; i < LANES; i++) sums[i] += q * load(keys[i] + k);
  }
  transpose(sums);
  for (uint32_t i = 0; i < LANES; i++) total += sums[i];
  for (; k < size; k++)
    for (uint32_t i = 0; i < LANES; i++) total[i] += query[k] * keys[i][k];
  return total;
}

/* Weights of the words, up to a factor, which is returned: one over their sum. */
static float weigh_words(const words_seen *seen, size_t offset, const float *query, uint32_t size, float *weights) {
  vec highest = splat(-__builtin_inff()), sum = splat(0.0f), scale = splat(1.0f / root_of((float)size));
  for (uint32_t w = 0; w < seen->count; w += LANES) {
    vec logits = ask_words(seen, w, offset, query, size) * scale;
    highest = most(logits, highest);
    store(weights + w, logits);
  }
  vec high = splat(most_of(highest));
  for (uint32_t w = 0; w < seen->count; w += LANES) {
    vec weight = exp_of(load(weights + w) - high);
    if (seen->count - w < LANES) weight = choose(lanes_between(0, seen->count - w), weight, splat(0.0f));
    store(weights + w, weight);
    sum += weight;
  }
  return 1.0f / sum_of(sum);
}

/* `vectors` vectors of the sum over words of weights times their values from `offset` on. */
INLINE void mix_words(const words_seen *seen, size_t offset, const float *weights, vec share, uint32_t vectors,
                      float *found) {
  vec sums[ASIDE];
  for (uint32_t i = 0; i < vectors; i++) sums[i] = splat(0.0f);
  for (uint32_t w = 0; w < seen->count; w++) {
    vec weight = splat(weights[w]);
    for (uint32_t i = 0; i < vectors; i++) sums[i] += weight * load(seen->words[w] + offset + i * LANES);
  }
  for (uint32_t i = 0; i < vectors; i++) store(found + i * LANES, sums[i] * share);
}

/* What one head of a caption finds: `size` numbers; its keys lie at `keys` of each word, its values at `values`. */
static void attend_head(const words_seen *seen, size_t keys, size_t values, const float *query, uint32_t size,
                        float *found) {
  float weights[MOST_TOKENS + LANES];
  float share = weigh_words(seen, keys, query, size, weights);
  uint32_t k = 0;
  for (; k + ASIDE * LANES <= size; k += ASIDE * LANES)
    mix_words(seen, values + k, weights, splat(share), ASIDE, found + k);
  for (; k + LANES <= size; k += LANES) mix_words(seen, values + k, weights, splat(share), 1, found + k);
  for (; k < size; k++) {
    found[k] = 0.0f;
    for (uint32_t w = 0; w < seen->count; w++) found[k] += weights[w] * seen->words[w][values + k];
    found[k] *= share;
  }
}

/* Keeps keys and values of the last word of `columns` captions from column c on, and says what each of them sees. */
static void keep_words(const laconic_run *run, const uint32_t *a, uint32_t c, uint32_t columns, words_seen *seen) {
  table now = table_of(run, a[2], a[3]);
  uint32_t slot = run->panel * PANEL + c;
  float *kept[LANES];
  for (uint32_t i = 0; i < columns; i++) {
    kept[i] = kept_word(run, a[8], run->word, slot + i);
    seen[i].count = run->word + 1;
    for (uint32_t w = 0; w <= run->word; w++)
      seen[i].words[w] = kept_word(run, a[8], w, run->ancestors[(size_t)w * run->slots + slot + i]);
  }
  take_columns(now.at + c, now.stride, 2 * a[6], columns, kept);
}

/* query, query_row, words, words_row, y, y_row, width, heads, kept: `words` are `width` rows of keys of the last word,
   then as many of values; they are added to `kept`, and each caption looks at what it has there. */
static void run_attend_words(const laconic_run *run, const uint32_t *a) {
  table query = table_of(run, a[0], a[1]), y = table_of(run, a[4], a[5]);
  uint32_t width = a[6], size = width / a[7];
  words_seen seen[LANES];
  float asked[LANES][MOST_HEAD], found[LANES][MOST_HEAD], *to[LANES];
  const float *from[LANES];
  for (uint32_t i = 0; i < LANES; i++) to[i] = asked[i], from[i] = found[i];
  for (uint32_t c = 0; c < query.columns; c += LANES) {
    uint32_t columns = query.columns - c < LANES ? query.columns - c : LANES;
    keep_words(run, a, c, columns, seen);
    for (uint32_t row = 0; row < width; row += size) {
      take_columns(query.at + row * query.stride + c, query.stride, size, columns, to);
      for (uint32_t i = 0; i < columns; i++) attend_head(seen + i, row, width + row, asked[i], size, found[i]);
      give_columns(from, size, columns, y.at + row * y.stride + c, y.stride);
    }
  }
}

static int check_attend_words(const plan_view *plan, const uint32_t *a) {
  uint32_t width = a[6];
  if (!sound_heads(width, a[7]) || width / a[7] > MOST_HEAD) return 0;
  return has_space(plan, a[0], ROWS) && has_rows(plan, a[0], a[1], width) && has_space(plan, a[2], ROWS) &&
         has_rows(plan, a[2], a[3], 2 * width) && has_space(plan, a[4], ROWS) && has_rows(plan, a[4], a[5], width) &&
         has_space(plan, a[8], WORDS) && has_rows(plan, a[8], 0, 2 * width);
}

#endif
