/* A plan, taken apart, and parts of its checks: all of it the same at every level, and seen by laconic.c.

   laconic.c is compiled for no particular processor, so that nothing here may depend on the size of a vector: vector.h
   and whatever includes it belong to the engine alone. */
#ifndef LACONIC_VIEW_H
#define LACONIC_VIEW_H

#include <stddef.h>
#include <string.h>

#include "inline.h"
#include "laconic.h"
#include "plan.h"

typedef struct { /* a plan, taken apart */
  const plan_header *header;
  const plan_buffer *buffers;
  const plan_matrix *matrices;
  const plan_operation *operations;
  const uint8_t *arena;
} plan_view;

INLINE size_t round_up(size_t number, size_t to) { return (number + to - 1) / to * to; }

INLINE plan_view view_plan(const void *plan) {
  const plan_header *h = plan;
  const uint8_t *bytes = plan;
  return (plan_view){h, (const void *)(bytes + h->buffers_at), (const void *)(bytes + h->matrices_at),
                     (const void *)(bytes + h->operations_at), bytes + h->arena_at};
}

INLINE const void *in_arena(const plan_view *plan, uint32_t at) { return plan->arena + at; }
INLINE const float *constants(const plan_view *plan, uint32_t at) { return at == NONE ? NULL : in_arena(plan, at); }

/* Parts of checks: each is 1 where all is well. */

INLINE int has_rows(const plan_view *plan, uint32_t buffer, uint32_t row, uint32_t rows) {
  if (buffer >= plan->header->buffers) return 0;
  uint32_t held = plan->buffers[buffer].rows;
  return row <= held && rows <= held - row && rows > 0;
}

INLINE int has_space(const plan_view *plan, uint32_t buffer, uint32_t space) {
  return buffer < plan->header->buffers && plan->buffers[buffer].space == space;
}

INLINE int has_constants(const plan_view *plan, uint32_t at, uint64_t floats) {
  return at % 4 == 0 && at <= plan->header->arena_bytes && floats * 4 <= plan->header->arena_bytes - at;
}

INLINE int has_matrix(const plan_view *plan, uint32_t matrix, int table) {
  return matrix < plan->header->matrices && (plan->matrices[matrix].form >= TABLE) == table;
}

/* Columns of a buffer, where they are known beforehand: of pixels, or of positions with pixels; else 0. */
INLINE uint32_t known_columns(const plan_view *plan, uint32_t buffer) {
  const plan_buffer *b = plan->buffers + buffer;
  if (b->space == PIXELS) return b->columns;
  return b->space == POSITIONS && plan->header->side ? plan->header->positions : 0;
}

/* Whether two buffers have as many columns, always. */
INLINE int same_columns(const plan_view *plan, uint32_t a, uint32_t b) {
  if (a >= plan->header->buffers || b >= plan->header->buffers) return 0;
  uint32_t space = plan->buffers[a].space;
  if (space == plan->buffers[b].space)
    return space != WORDS && (space != PIXELS || plan->buffers[a].columns == plan->buffers[b].columns);
  uint32_t columns = known_columns(plan, a);
  return columns && columns == known_columns(plan, b);
}

#endif
