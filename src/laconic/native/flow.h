/* What operations read has been written before, and nothing else has taken its place: numbers of a plan never depend
   on what the workspace held before, nor on which image or caption was at work.

   The checks of single operations have passed: buffers, rows and matrices are there. A pass over all pairs of
   operations needs no memory, and takes no time for the few hundred that captioners have. */
#ifndef LACONIC_FLOW_H
#define LACONIC_FLOW_H

#include "view.h"

#define MOST_OPERATIONS 2048u
#define MOST_ACCESSES 5u

enum manner {
  READS,
  WRITES,
  UPDATES, /* reads and writes */
  SPENDS,  /* reads, and leaves numbers that mean nothing */
  SPOILS,  /* leaves numbers that mean nothing: what it works with */
  RENEWS   /* writes at the first word alone */
};

typedef struct { /* rows of a buffer that an operation touches */
  uint32_t buffer, row, rows;
  enum manner manner;
} access;

typedef struct {
  access of[MOST_ACCESSES];
  uint32_t count;
} accesses;

INLINE void touch(accesses *list, enum manner manner, uint32_t buffer, uint32_t row, uint32_t rows) {
  list->of[list->count++] = (access){buffer, row, rows, manner};
}

INLINE uint32_t rows_in(const plan_view *plan, uint32_t buffer) { return plan->buffers[buffer].rows; }

/* Of products of matrices. */
INLINE void touch_product(accesses *list, const plan_matrix *m, const uint32_t *a, uint32_t taps, uint32_t start) {
  touch(list, READS, a[0], a[1], m->columns / taps);
  touch(list, start == FROM_SELF ? UPDATES : WRITES, a[2], a[3], m->rows);
}

/* Of attention with queries, keys with values below them, and results. */
INLINE void touch_attention(accesses *list, const uint32_t *a) {
  touch(list, READS, a[0], a[1], a[6]);
  touch(list, READS, a[2], a[3], 2 * a[6]);
  touch(list, WRITES, a[4], a[5], a[6]);
}

static void touch_maps(const plan_view *plan, const plan_operation *operation, accesses *list) {
  const uint32_t *a = operation->arguments;
  switch (operation->code) {
    case READ_PIXELS: touch(list, WRITES, a[0], 0, 3); break;
    case CONVOLVE:
      touch_product(list, plan->matrices + a[4], a, a[7] * a[7], a[9]);
      if (a[11] != NONE) touch(list, SPOILS, a[11], 0, rows_in(plan, a[11]));
      break;
    case DEPTHWISE:
    case MAX_POOL: {
      uint32_t scratch = operation->code == DEPTHWISE ? a[9] : a[6];
      touch(list, READS, a[0], 0, rows_in(plan, a[1]));
      touch(list, WRITES, a[1], 0, rows_in(plan, a[1]));
      touch(list, SPOILS, scratch, 0, rows_in(plan, scratch));
      break;
    }
    case ADD: touch(list, READS, a[0], a[1], a[4]), touch(list, UPDATES, a[2], a[3], a[4]); break;
    default: /* MEAN */
      touch(list, READS, a[0], 0, rows_in(plan, a[1])), touch(list, WRITES, a[1], 0, rows_in(plan, a[1]));
  }
}

static void touch_states(const plan_view *plan, const plan_operation *operation, accesses *list) {
  const uint32_t *a = operation->arguments;
  uint32_t half = rows_in(plan, a[0]) / 2;
  switch (operation->code) {
    case LINEAR:
      touch_product(list, plan->matrices + a[4], a, 1, a[6]);
      if (a[6] == FROM_IMAGE) touch(list, READS, a[7], 0, plan->matrices[a[4]].rows);
      break;
    case INITIAL:
      touch(list, READS, a[0], a[1], rows_in(plan, a[0]) - a[1]);
      touch(list, RENEWS, a[2], a[3], rows_in(plan, a[0]) - a[1]);
      break;
    case EMBED: touch(list, WRITES, a[0], a[1], plan->matrices[a[2]].columns); break;
    case LSTM:
      touch(list, READS, a[0], 0, rows_in(plan, a[0]));
      touch(list, UPDATES, a[1], 0, rows_in(plan, a[1]));
      touch(list, WRITES, a[2], a[3], rows_in(plan, a[1]));
      break;
    case GRU_RESET:
      touch(list, READS, a[0], 0, half), touch(list, READS, a[1], a[2], half), touch(list, WRITES, a[3], a[4], half);
      break;
    default: /* GRU_UPDATE */
      touch(list, READS, a[0], half, half), touch(list, READS, a[1], 0, half), touch(list, UPDATES, a[2], a[3], half);
  }
}

static void touch_images(const plan_view *plan, const plan_operation *operation, accesses *list) {
  const uint32_t *a = operation->arguments;
  switch (operation->code) {
    case FACTOR:
    case LAYER_NORM:
      touch(list, READS, a[0], 0, rows_in(plan, a[0])), touch(list, WRITES, a[1], 0, rows_in(plan, a[1]));
      break;
    case ATTEND_ADDITIVE: /* and its factors: see finds_factors */
      touch(list, SPENDS, a[0], 0, rows_in(plan, a[0]));
      touch(list, READS, a[1], 0, rows_in(plan, a[1]));
      touch(list, READS, a[3], 0, rows_in(plan, a[3]));
      touch(list, SPOILS, a[5], 0, rows_in(plan, a[5]));
      touch(list, WRITES, a[6], a[7], rows_in(plan, a[3]));
      break;
    case RELATE: touch(list, WRITES, a[0], 0, rows_in(plan, a[0])); break;
    case GLU:
      touch(list, READS, a[0], 0, rows_in(plan, a[0])), touch(list, WRITES, a[1], a[2], rows_in(plan, a[0]) / 2);
      break;
    case ATTEND_RELATED:
      touch_attention(list, a);
      if (a[8] != NONE) touch(list, READS, a[8], a[9], a[7]);
      break;
    default: /* ATTEND_WORDS, ATTEND_POSITIONS */ touch_attention(list, a);
  }
}

static accesses accesses_of(const plan_view *plan, uint32_t operation) {
  accesses list = {.count = 0};
  const plan_operation *of = plan->operations + operation;
  if (of->code <= MEAN) touch_maps(plan, of, &list);
  else if (of->code <= GRU_UPDATE) touch_states(plan, of, &list);
  else touch_images(plan, of, &list);
  return list;
}

/* Whether two tables are different ones that share memory, as maps that are not needed at the same time do. */
static int share_memory(const plan_view *plan, uint32_t a, uint32_t b) {
  const plan_buffer *one = plan->buffers + a, *other = plan->buffers + b;
  if (a == b || one->space != PIXELS || other->space != PIXELS) return 0;
  uint64_t end = one->offset + (uint64_t)one->rows * round_up(one->columns, 16) + 16;
  uint64_t other_end = other->offset + (uint64_t)other->rows * round_up(other->columns, 16) + 16;
  return one->offset < other_end && other->offset < end;
}

INLINE int overlap(const access *a, const access *b) {
  return a->buffer == b->buffer && a->row < b->row + b->rows && b->row < a->row + a->rows;
}

/* Whether an operation makes rows mean nothing. */
static int spoils(const plan_view *plan, uint32_t operation, const access *rows) {
  accesses list = accesses_of(plan, operation);
  for (const access *a = list.of; a < list.of + list.count; a++) {
    if (a->manner == READS) continue;
    if (share_memory(plan, a->buffer, rows->buffer)) return 1;
    int means_nothing = a->manner == SPENDS || a->manner == SPOILS || plan->operations[operation].code == FACTOR;
    if (means_nothing && overlap(a, rows)) return 1;
  }
  return 0;
}

/* The end of what is known of a buffer from `row` on, beforehand: kept rows, and features that are given. */
static uint32_t known_until(const plan_view *plan, uint32_t buffer, uint32_t row) {
  const plan_header *h = plan->header;
  const plan_buffer *b = plan->buffers + buffer;
  if (b->space == ROWS && b->kept && row >= b->kept_from && row < b->kept_from + b->kept) return b->kept_from + b->kept;
  if (!h->side && buffer == h->grid && row < h->channels) return h->channels;
  if (!h->side && buffer == h->pooled && row < h->pooled_channels) return h->pooled_channels;
  return row;
}

/* Whether rows hold what operations before `end` have written there. */
static int is_written(const plan_view *plan, uint32_t end, const access *rows) {
  uint32_t begin = end, row = rows->row, until;
  while (begin > 0 && !spoils(plan, begin - 1, rows)) begin--;
  for (; row < rows->row + rows->rows; row = until) {
    until = known_until(plan, rows->buffer, row);
    for (uint32_t i = begin; i < end; i++) {
      accesses list = accesses_of(plan, i);
      for (const access *a = list.of; a < list.of + list.count; a++)
        if ((a->manner == WRITES || a->manner == UPDATES) && a->buffer == rows->buffer && a->row <= row &&
            a->row + a->rows > until)
          until = a->row + a->rows;
    }
    if (until == row) return 0;
  }
  return 1;
}

/* Whether the factors of the keys that an additive attention looks at were made of those keys. */
static int finds_factors(const plan_view *plan, uint32_t operation) {
  const uint32_t *a = plan->operations[operation].arguments;
  for (uint32_t i = operation; i-- > 0;) {
    const plan_operation *before = plan->operations + i;
    if (before->code == FACTOR && before->arguments[0] == a[1] && before->arguments[1] == a[2]) return 1;
    accesses list = accesses_of(plan, i);
    for (const access *b = list.of; b < list.of + list.count; b++)
      if (b->manner != READS && (b->buffer == a[1] || b->buffer == a[2])) return 0;
  }
  return 0;
}

/* Whether no other operation keeps its words in the same buffer. */
static int keeps_alone(const plan_view *plan, uint32_t operation) {
  const plan_operation *all = plan->operations;
  for (uint32_t i = 0; i < plan->header->operations; i++)
    if (i != operation && all[i].code == ATTEND_WORDS && all[i].arguments[8] == all[operation].arguments[8]) return 0;
  return 1;
}

/* Whether a table of positions that `step` works with is nothing else. */
static int is_only_spoilt(const plan_view *plan, uint32_t buffer) {
  for (uint32_t i = 0; i < plan->header->operations; i++) {
    accesses list = accesses_of(plan, i);
    for (const access *a = list.of; a < list.of + list.count; a++)
      if (a->buffer == buffer && a->manner != SPOILS) return 0;
  }
  return 1;
}

/* Captions belong to `step`, which writes nothing else, and `images` knows no single image; what is kept is never left
   without meaning. */
static int check_access(const plan_view *plan, uint32_t operation, const access *a) {
  const plan_header *h = plan->header;
  const plan_buffer *b = plan->buffers + a->buffer;
  int in_step = operation >= h->operations - h->step, of_captions = b->space == ROWS;
  if (of_captions && !in_step) return 0;
  if (!in_step && operation >= h->encode + h->image && b->space != IMAGES) return 0;
  if (a->manner == SPOILS) return b->space == PIXELS ? !in_step : is_only_spoilt(plan, a->buffer);
  if (a->manner != READS && of_captions != in_step) return 0;
  if (a->manner == RENEWS) return a->row >= b->kept_from && a->row + a->rows <= b->kept_from + b->kept;
  if (a->manner == SPENDS && b->kept) return 0;
  return a->manner == WRITES || is_written(plan, operation, a);
}

/* Whether nothing that an operation writes is anything else that it touches. */
static int are_apart(const plan_view *plan, const accesses *list) {
  for (const access *a = list->of; a < list->of + list->count; a++)
    for (const access *b = list->of; b < a; b++)
      if ((a->manner != READS || b->manner != READS) && (overlap(a, b) || share_memory(plan, a->buffer, b->buffer)))
        return 0;
  return 1;
}

static int check_flow(const plan_view *plan) {
  const plan_header *h = plan->header;
  if (h->operations > MOST_OPERATIONS) return 0;
  for (uint32_t i = 0; i < h->operations; i++) {
    accesses list = accesses_of(plan, i);
    if (!are_apart(plan, &list)) return 0;
    for (const access *a = list.of; a < list.of + list.count; a++)
      if (!check_access(plan, i, a)) return 0;
    if (plan->operations[i].code == ATTEND_ADDITIVE && !finds_factors(plan, i)) return 0;
    if (plan->operations[i].code == ATTEND_WORDS && !keeps_alone(plan, i)) return 0;
  }
  const access logits = {h->logits, 0, h->vocabulary, READS}, grid = {h->grid, 0, h->channels, READS};
  const access pooled = {h->pooled, 0, h->pooled_channels, READS};
  if (h->step && !is_written(plan, h->operations, &logits)) return 0; /* an encoder alone has no steps */
  return is_written(plan, h->encode, &grid) && (h->pooled == NONE || is_written(plan, h->encode, &pooled));
}

#endif
