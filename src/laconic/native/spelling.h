/* How words are spelled by digits: laconic.radix. Ids below FIRST_DIGIT are no digits. */
#ifndef LACONIC_SPELLING_H
#define LACONIC_SPELLING_H

#include "plan.h"

#define FIRST_DIGIT 4
#define LEAST_BASE 16u
#define MOST_BASE 65536u
#define MOST_DIGITS 8u /* of 2^32 words to the least base */

typedef struct {
  uint32_t digits; /* tokens of a word; 1 where words are not spelled */
  int32_t last[MOST_DIGITS], greatest, unk;
} spelling;

typedef struct { /* ids that may be said */
  int32_t first, last;
} id_range;

static inline spelling spelling_of(const plan_header *h) {
  spelling s = {.digits = 1, .last = {(int32_t)h->vocabulary - 1}, .greatest = (int32_t)h->vocabulary - 1};
  s.unk = (int32_t)h->unk;
  if (!h->words) return s;
  uint32_t base = h->vocabulary - FIRST_DIGIT, last = h->words - FIRST_DIGIT - 1, rest = last;
  for (s.digits = 1; rest >= base; rest /= base) s.digits++;
  for (uint32_t i = s.digits; i-- > 0; last /= base) s.last[i] = FIRST_DIGIT + (int32_t)(last % base);
  return s;
}

/* What may follow `said` tokens of a caption: at the beginning of a word all that is no digit, too. */
static inline id_range possible(const spelling *s, const int32_t *said, uint32_t count) {
  uint32_t place = count % s->digits, same = 0;
  const int32_t *word = said + count - place;
  if (place && word[0] == s->unk) return (id_range){s->unk, s->unk}; /* said once for each digit */
  while (same < place && word[same] == s->last[same]) same++;
  return (id_range){place ? FIRST_DIGIT : 0, same == place ? s->last[place] : s->greatest};
}

/* Number of the word of these tokens in the plan's list; -1 where there is none. */
static inline int32_t word_number(const plan_header *h, const int32_t *tokens) {
  spelling s = spelling_of(h);
  if (!h->words) return tokens[0];
  uint64_t base = h->vocabulary - FIRST_DIGIT, number = 0;
  for (uint32_t i = 0; i < s.digits; i++) {
    if (tokens[i] < FIRST_DIGIT || tokens[i] > s.greatest) return tokens[i] == s.unk ? s.unk : -1;
    number = number * base + (uint64_t)(tokens[i] - FIRST_DIGIT);
  }
  return number + FIRST_DIGIT < h->words ? (int32_t)(number + FIRST_DIGIT) : -1;
}

#endif
