/* Greedy and beam search over the program `step`: the same books as laconic.decode, entry by entry.

   Lengths count emitted tokens, the end's included. Of equals the earlier comes first, everywhere. */
#ifndef LACONIC_SEARCH_H
#define LACONIC_SEARCH_H

#include "best.h"
#include "guard.h"
#include "run.h"

#define ROWS_MOVED 16u /* at a time, to other slots */

typedef struct { /* captions of one length, or stored ones: `beam` for each image */
  double *scores;
  uint32_t *lengths; /* of the stored ones */
  int32_t *tokens;   /* max_length for each */
  float *log_probs;
} captions_kept;

typedef struct {
  uint32_t beam, length, k, forbidden;
  spelling spelled;
  int32_t forbidden_ids[3];
  captions_kept live, next, stored;
  best_words best;
  double *divisors;                /* length ** length_penalty, by length */
  uint32_t *image_of, *next_image; /* of each live caption */
  uint32_t *source;                /* the slot that each of the next captions extends */
  uint32_t *stored_count;          /* of each image */
  int32_t *words;                  /* the last word of each live caption */
  uint32_t *ancestors, *moved;     /* see run.h; what is on its way to other slots */
  size_t *places;                  /* of what each of the next captions extends, in a row of all panels */
} search_books;

/* Gives out pieces of a workspace one after the other; with no memory it only counts them. */
typedef struct {
  uint8_t *memory;
  uint64_t used;
} carving;

static void *carve(carving *from, uint64_t count, uint32_t size) {
  void *piece = from->memory ? from->memory + from->used : NULL;
  uint64_t bytes = (count * size + 63) / 64 * 64 + GUARD_BYTES;
  if (piece) forbid((uint8_t *)piece + count * size, bytes - count * size);
  from->used += bytes;
  return piece;
}

static captions_kept carve_captions(carving *from, uint64_t slots, uint32_t length) {
  captions_kept kept;
  kept.scores = carve(from, slots, sizeof(double));
  kept.lengths = carve(from, slots, 4);
  kept.tokens = carve(from, slots * length, 4);
  kept.log_probs = carve(from, slots * length, 4);
  return kept;
}

static search_books open_books(const laconic_run *run, carving *from) {
  const plan_header *h = run->plan.header;
  const laconic_decoding *d = run->decoding;
  search_books b = {.beam = d->beam, .length = run->length, .spelled = spelling_of(h)};
  const uint32_t ids[3] = {h->pad, h->bos, h->unk};
  for (uint32_t i = 0; i < 3; i++) { /* each once, and the end never */
    int known = ids[i] == h->eos || (i == 2 && d->allow_unknown);
    for (uint32_t j = 0; j < b.forbidden; j++) known |= b.forbidden_ids[j] == (int32_t)ids[i];
    if (!known) b.forbidden_ids[b.forbidden++] = (int32_t)ids[i];
  }
  b.k = b.beam + b.forbidden < h->vocabulary ? b.beam + b.forbidden : h->vocabulary;
  uint64_t slots = run->slots;
  b.live = carve_captions(from, slots, b.length);
  b.next = carve_captions(from, slots, b.length);
  b.stored = carve_captions(from, slots, b.length);
  b.best.log_probs = carve(from, slots * b.k, 4);
  b.best.ids = carve(from, slots * b.k, 4);
  b.best.possible = carve(from, slots, sizeof *b.best.possible);
  b.divisors = carve(from, b.length + 1, sizeof(double));
  b.image_of = carve(from, slots, 4), b.next_image = carve(from, slots, 4);
  b.source = carve(from, slots, 4), b.stored_count = carve(from, run->count, 4);
  b.words = carve(from, slots, 4);
  b.ancestors = carve(from, slots * b.length, 4), b.moved = carve(from, round_up(slots, 8) * ROWS_MOVED, 4);
  b.places = carve(from, slots, sizeof(size_t));
  return b;
}

static double search_bytes(const laconic_run *run) {
  carving count = {0};
  open_books(run, &count);
  return (double)count.used;
}

static double power(uint32_t base, double exponent) {
  if (exponent == 0.0) return 1.0;
  return exponent == 1.0 ? base : exp_double(exponent * log_of(base));
}

/* Checks the words that `slot` is offered, and takes away the forbidden ones: 0, or what is wrong with them. */
static int allow(const search_books *b, uint32_t slot) {
  float *values = b->best.log_probs + (size_t)slot * b->k;
  const int32_t *ids = b->best.ids + (size_t)slot * b->k;
  int stuck = 1;
  for (uint32_t i = 0; i < b->k; i++) {
    if (!(values[i] <= 1e-3f)) return LACONIC_DIVERGED;
    if (values[i] > 0.0f) values[i] = 0.0f;
    for (uint32_t j = 0; j < b->forbidden; j++)
      if (ids[i] == b->forbidden_ids[j]) values[i] = -__builtin_inff();
    stuck &= values[i] == -__builtin_inff();
  }
  return stuck ? LACONIC_STUCK : LACONIC_OK;
}

/* Where a caption of that score belongs among `count` sorted ones: behind its equals. */
INLINE uint32_t rank_of(const double *scores, uint32_t count, double score) {
  uint32_t low = 0;
  while (low < count) {
    uint32_t middle = (low + count) / 2;
    if (scores[middle] < score) count = middle;
    else low = middle + 1;
  }
  return low;
}

/* The best one-word extensions of the live captions `first` to `last`, of one image: scores, words and sources from
   entry `to` of `next` on. Returns how many. Of each only the last token is written. */
static uint32_t extend(const search_books *b, uint32_t first, uint32_t last, uint32_t to, uint32_t word) {
  double *scores = b->next.scores + to;
  uint32_t count = 0;
  for (uint32_t slot = first; slot < last; slot++)
    for (uint32_t i = 0; i < b->k; i++) {
      float log_prob = b->best.log_probs[(size_t)slot * b->k + i];
      if (log_prob == -__builtin_inff()) continue;
      double score = b->live.scores[slot] + (double)log_prob;
      if (count == b->beam && !(score > scores[count - 1])) break; /* the next ones are no better */
      uint32_t at = rank_of(scores, count, score);
      if (count < b->beam) count++;
      for (uint32_t j = count - 1; j > at; j--) {
        size_t into = to + j;
        b->next.scores[into] = b->next.scores[into - 1], b->source[into] = b->source[into - 1];
        b->next.tokens[into * b->length + word] = b->next.tokens[(into - 1) * b->length + word];
        b->next.log_probs[into * b->length + word] = b->next.log_probs[(into - 1) * b->length + word];
      }
      scores[at] = score, b->source[to + at] = slot;
      b->next.tokens[(size_t)(to + at) * b->length + word] = b->best.ids[(size_t)slot * b->k + i];
      b->next.log_probs[(size_t)(to + at) * b->length + word] = log_prob;
    }
  return count;
}

static void copy_caption(captions_kept to, size_t at, captions_kept from, size_t slot, uint32_t length,
                         uint32_t words) {
  memmove(to.tokens + at * length, from.tokens + slot * length, words * 4);
  memmove(to.log_probs + at * length, from.log_probs + slot * length, words * 4);
}

/* Stores entry `slot` of `next`, of `words` tokens, for an image, if it is good enough. */
static void keep_caption(const search_books *b, uint32_t image, size_t slot, uint32_t words) {
  double score = b->next.scores[slot] / b->divisors[words];
  size_t base = (size_t)image * b->beam;
  uint32_t count = b->stored_count[image], at = rank_of(b->stored.scores + base, count, score);
  if (at == b->beam) return;
  if (count < b->beam) b->stored_count[image] = ++count;
  for (uint32_t j = count - 1; j > at; j--) {
    b->stored.scores[base + j] = b->stored.scores[base + j - 1];
    b->stored.lengths[base + j] = b->stored.lengths[base + j - 1];
    copy_caption(b->stored, base + j, b->stored, base + j - 1, b->length, b->stored.lengths[base + j]);
  }
  b->stored.scores[base + at] = score, b->stored.lengths[base + at] = words;
  copy_caption(b->stored, base + at, b->next, slot, b->length, words);
}

/* Extends the live captions of an image, stores those that end, and puts the others behind the `grown` next ones.
   Returns how many there are then. */
static uint32_t grow(const search_books *b, uint32_t first, uint32_t last, uint32_t grown, uint32_t word, int32_t eos) {
  uint32_t image = b->image_of[first], found = extend(b, first, last, grown, word), end = grown;
  double hope = -__builtin_inf();
  for (uint32_t i = grown; i < grown + found; i++) {
    copy_caption(b->next, i, b->live, b->source[i], b->length, word);
    int32_t token = b->next.tokens[(size_t)i * b->length + word];
    if (token == eos || word + 1 == b->length) {
      keep_caption(b, image, i, word + 1);
      continue;
    }
    if (b->next.scores[i] > hope) hope = b->next.scores[i];
    if (i != end) {
      copy_caption(b->next, end, b->next, i, b->length, word + 1);
      b->next.scores[end] = b->next.scores[i], b->source[end] = b->source[i];
    }
    b->next_image[end] = image, b->words[end++] = token;
  }
  /* A caption only gets worse by growing, and the largest divisor it can hope for is that of the greatest length. */
  uint32_t kept = b->stored_count[image];
  double worst = kept < b->beam ? -__builtin_inf() : b->stored.scores[(size_t)image * b->beam + kept - 1];
  return hope / b->divisors[b->length] > worst ? end : grown;
}

/* Rows of one panel: number j of each becomes what was number from[j]. There are LANES of them. */
static void move_few(float *at, size_t rows, const uint32_t *from) {
  uint32_t f[LANES];
  memcpy(f, from, sizeof f);
  for (float *end = at + rows * LANES; at < end; at += LANES) {
    float moved[LANES];
    for (uint32_t j = 0; j < LANES; j++) moved[j] = at[f[j]];
    memcpy(at, moved, sizeof moved);
  }
}

/* `rows` rows of columns that lie at `places` of the first of them, side by side. Up to LANES - 1 columns more. */
static void gather_columns(float *to, size_t to_stride, const float *from, size_t from_stride, uint32_t rows,
                           const size_t *places, uint32_t columns) {
  for (uint32_t c = 0; c < columns; c += LANES) {
    const float *at[LANES];
    for (uint32_t i = 0; i < LANES; i++) at[i] = from + places[c + i < columns ? c + i : columns - 1];
    for (uint32_t r = 0; r < rows; r++) {
      vec found;
      for (uint32_t i = 0; i < LANES; i++) found[i] = at[i][r * from_stride];
      store(to + r * to_stride + c, found);
    }
  }
}

/* Moves what buffers keep from word to word to the slots of the next captions. */
static void select_slots(const laconic_run *run, const search_books *b, uint32_t before, uint32_t after,
                         uint32_t word) {
  uint32_t old_lanes = lanes_of(before), lanes = lanes_of(after), capacity = run->panel_capacity, few[LANES] = {0};
  float *moved = (float *)b->moved;
  const size_t stride = round_up(after, LANES);
  if (old_lanes == LANES && lanes == LANES) memcpy(few, b->source, after * sizeof *few);
  for (uint32_t which = 0; which < run->plan.header->buffers; which++) {
    const plan_buffer *buffer = run->plan.buffers + which;
    if (buffer->space != ROWS || !buffer->kept) continue;
    float *at = run->memory + run->base[which];
    size_t panel = (size_t)buffer->rows * capacity;
    if (old_lanes == LANES && lanes == LANES) {
      move_few(at + buffer->kept_from * LANES, buffer->kept, few);
      continue;
    }
    for (uint32_t j = 0; j < after; j++) b->places[j] = b->source[j] / PANEL * panel + b->source[j] % PANEL;
    for (uint32_t done = 0, some; done < buffer->kept; done += some) {
      some = buffer->kept - done < ROWS_MOVED ? buffer->kept - done : ROWS_MOVED;
      /* from the end that no row is moved over before it has been read */
      size_t first = buffer->kept_from + (lanes > old_lanes ? buffer->kept - done - some : done);
      gather_columns(moved, stride, at + first * old_lanes, old_lanes, some, b->places, after);
      for (uint32_t r = 0; r < some; r++)
        for (uint32_t j = 0; j < after; j += PANEL)
          memcpy(at + j / PANEL * panel + (first + r) * lanes, moved + r * stride + j,
                 (after - j < PANEL ? after - j : PANEL) * sizeof *moved);
    }
  }
  for (uint32_t w = 0; w <= word; w++) {
    uint32_t *row = b->ancestors + (size_t)w * run->slots;
    for (uint32_t j = 0; j < after; j++) b->moved[j] = row[b->source[j]];
    memcpy(row, b->moved, after * 4);
  }
}

static void write_captions(const laconic_run *run, const search_books *b, const laconic_captions *to) {
  for (uint32_t image = 0; image < run->count; image++)
    for (uint32_t i = 0; i < b->beam; i++) {
      size_t at = (size_t)image * b->beam + i;
      int there = i < b->stored_count[image];
      to->lengths[at] = there ? b->stored.lengths[at] : 0;
      to->scores[at] = there ? b->stored.scores[at] : 0.0;
      for (uint32_t w = 0; w < b->length; w++) {
        int said = w < to->lengths[at];
        to->tokens[at * b->length + w] = said ? b->stored.tokens[at * b->length + w] : 0;
        to->log_probs[at * b->length + w] = said ? b->stored.log_probs[at * b->length + w] : 0.0f;
      }
    }
}

/* The words that `live` captions are offered, panel by panel. */
static int offer(laconic_run *run, const search_books *b, void (*step)(laconic_run *), uint32_t live,
                 uint32_t *failed) {
  for (uint32_t first = 0; first < live; first += PANEL) {
    run->panel = first / PANEL, run->columns = live - first < PANEL ? live - first : PANEL;
    run->lanes = lanes_of(live);
    run->tokens = b->words + first, run->image_of = b->image_of + first;
    step(run);
    for (uint32_t slot = first; slot < first + run->columns; slot++)
      b->best.possible[slot] = possible(&b->spelled, b->live.tokens + (size_t)slot * b->length, run->word);
    find_best(table_of(run, run->plan.header->logits, 0), b->k, b->best, first);
  }
  for (uint32_t slot = 0; slot < live; slot++) {
    int error = allow(b, slot);
    if (error && failed) *failed = b->image_of[slot];
    if (error) return error;
  }
  return LACONIC_OK;
}

static int search(laconic_run *run, void (*step)(laconic_run *), const laconic_captions *captions, uint32_t *failed) {
  carving from = {run->books, 0};
  search_books b = open_books(run, &from);
  const plan_header *h = run->plan.header;
  uint32_t live = run->count;
  for (uint32_t i = 0; i <= b.length; i++) b.divisors[i] = i ? power(i, run->decoding->length_penalty) : 1.0;
  for (uint32_t i = 0; i < live; i++)
    b.image_of[i] = i, b.live.scores[i] = 0.0, b.words[i] = (int32_t)h->bos, b.stored_count[i] = 0;
  run->ancestors = b.ancestors;
  for (uint32_t word = 0; word < b.length && live; word++) {
    run->word = word;
    for (uint32_t slot = 0; slot < live; slot++) b.ancestors[(size_t)word * run->slots + slot] = slot;
    int error = offer(run, &b, step, live, failed);
    if (error) return error;
    uint32_t grown = 0;
    for (uint32_t first = 0, last; first < live; first = last) {
      for (last = first; last < live && b.image_of[last] == b.image_of[first];) last++;
      grown = grow(&b, first, last, grown, word, (int32_t)h->eos);
    }
    if (grown) select_slots(run, &b, live, grown, word);
    captions_kept now = b.next;
    uint32_t *images = b.next_image;
    b.next = b.live, b.live = now, b.next_image = b.image_of, b.image_of = images, live = grown;
  }
  write_captions(run, &b, captions);
  return LACONIC_OK;
}

#endif
