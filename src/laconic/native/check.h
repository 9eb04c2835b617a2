/* What can be said of a plan before its operations are looked at: sections lie within it, tables hold what they may. */
#ifndef LACONIC_CHECK_H
#define LACONIC_CHECK_H

#include "spelling.h"
#include "view.h"

#define MOST_ROWS (1u << 24)    /* of any table */
#define MOST_POSITIONS 65536u   /* of an image */
#define MOST_SCRATCH (1u << 28) /* floats: what 32 bits count in bytes, with room for what lies behind */

INLINE int holds(const plan_header *h, uint32_t at, uint64_t size) {
  return at % PLAN_ALIGNMENT == 0 && at >= sizeof(plan_header) && at <= h->bytes && size <= h->bytes - at;
}

static int check_sections(const plan_header *h) {
  uint64_t programs = (uint64_t)h->encode + h->image + h->images + h->step;
  return holds(h, h->buffers_at, (uint64_t)h->buffers * sizeof(plan_buffer)) &&
         holds(h, h->matrices_at, (uint64_t)h->matrices * sizeof(plan_matrix)) &&
         holds(h, h->operations_at, (uint64_t)h->operations * sizeof(plan_operation)) &&
         holds(h, h->arena_at, h->arena_bytes) && holds(h, h->words_at, h->words_bytes) && programs == h->operations;
}

static int check_buffer(const plan_header *h, const plan_buffer *b) {
  if (b->space >= SPACES || b->rows < 1 || b->rows > MOST_ROWS) return 0;
  if (b->space == ROWS ? b->kept_from > b->rows || b->kept > b->rows - b->kept_from : b->kept > 1 || b->kept_from)
    return 0;
  if (b->space != PIXELS) return b->columns == 0 && b->offset == 0;
  if (b->columns < 1 || b->columns > MOST_ROWS || b->kept || b->offset % 16) return 0;
  return b->offset + (uint64_t)b->rows * round_up(b->columns, 16) + 16 <= h->scratch;
}

static int check_words(const plan_header *h, const uint8_t *words) {
  uint32_t lines = 0;
  for (uint32_t i = 0; i < h->words_bytes; i++) lines += words[i] == '\n';
  return lines == (h->words ? h->words : h->vocabulary) && h->words_bytes && words[h->words_bytes - 1] == '\n';
}

/* Digits are the ids behind the specials, which are the first ones. */
static int check_spelling(const plan_header *h) {
  if (!h->words) return 1;
  if (h->pad >= FIRST_DIGIT || h->unk >= FIRST_DIGIT || h->bos >= FIRST_DIGIT || h->eos >= FIRST_DIGIT) return 0;
  return h->words > FIRST_DIGIT && h->vocabulary >= FIRST_DIGIT + LEAST_BASE &&
         h->vocabulary <= FIRST_DIGIT + MOST_BASE;
}

static int check_header(const plan_view *plan) {
  const plan_header *h = plan->header;
  uint32_t v = h->vocabulary;
  if (v < 1 || h->pad >= v || h->unk >= v || h->bos >= v || h->eos >= v) return 0;
  if (!check_spelling(h) || h->scratch > MOST_SCRATCH) return 0;
  if (h->side > 4096 || h->positions < 1 || h->positions > MOST_POSITIONS || (!h->side && h->encode)) return 0;
  if (!has_space(plan, h->grid, POSITIONS) || !has_rows(plan, h->grid, 0, h->channels)) return 0;
  if (h->pooled != NONE && (!has_space(plan, h->pooled, IMAGES) || !has_rows(plan, h->pooled, 0, h->pooled_channels)))
    return 0;
  if (h->pooled != NONE && !h->side && h->pooled_channels != h->channels) return 0;
  return has_space(plan, h->logits, ROWS) && plan->buffers[h->logits].rows == v && !plan->buffers[h->logits].kept;
}

static int check_tables(const void *bytes, size_t size) {
  const plan_header *h = bytes;
  if (size < sizeof *h || (uintptr_t)bytes % PLAN_ALIGNMENT || memcmp(h->magic, PLAN_MAGIC, 8))
    return LACONIC_NOT_A_PLAN;
  if (h->version != PLAN_VERSION) return LACONIC_OTHER_VERSION;
  if (h->bytes > size) return LACONIC_NOT_A_PLAN;
  if (!check_sections(h)) return LACONIC_DAMAGED;
  plan_view plan = view_plan(bytes);
  for (uint32_t i = 0; i < h->buffers; i++)
    if (!check_buffer(h, plan.buffers + i)) return LACONIC_DAMAGED;
  return check_words(h, (const uint8_t *)bytes + h->words_at) && check_header(&plan) ? LACONIC_OK : LACONIC_DAMAGED;
}

#endif
