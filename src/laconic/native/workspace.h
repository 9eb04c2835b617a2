/* How much memory a call takes, and where each table lies in it. */
#ifndef LACONIC_WORKSPACE_H
#define LACONIC_WORKSPACE_H

#include "guard.h"
#include "run.h"
#include "search.h"

/* Of a caption, at most. */
INLINE uint32_t tokens_of(const plan_header *h, const laconic_decoding *d) {
  return d->max_length * spelling_of(h).digits;
}

INLINE int sound_decoding(const plan_header *h, const laconic_decoding *d) {
  return d->beam >= 1 && d->beam <= MOST_BEAMS && d->max_length >= 1 && d->max_length <= MOST_TOKENS &&
         tokens_of(h, d) <= MOST_TOKENS && d->allow_unknown <= 1 && d->reserved == 0 && d->length_penalty >= 0.0 &&
         d->length_penalty <= MOST_PENALTY;
}

/* Floats that a buffer takes; as a double, which no hostile size overflows. */
static double floats_of(const laconic_run *run, const plan_buffer *b) {
  double rows = b->rows, p = run->most_positions;
  switch (b->space) {
    case POSITIONS: return rows * (double)round_up(run->most_positions, 16) * (b->kept ? run->count : 1);
    case PAIRS: return rows * (p * p + 16);
    case IMAGES: return rows * (double)round_up(run->count, 16);
    case ROWS: return rows * run->panel_capacity * (b->kept ? (run->slots + PANEL - 1) / PANEL : 1);
    case WORDS: return (rows + 16) * run->slots * run->length;
    default: return 0.0;
  }
}

/* Lays out tables from float `at` on, those of WORDS or all others but maps. Returns the first float behind them. */
static double lay_out_tables(const laconic_run *run, int words, double at, size_t *base) {
  for (uint32_t i = 0; i < run->plan.header->buffers; i++) {
    const plan_buffer *b = run->plan.buffers + i;
    if (b->space == PIXELS || (b->space == WORDS) != words) continue;
    if (base) base[i] = (size_t)at;
    at += (double)((uint64_t)(floats_of(run, b) + 15.0) / 16 * 16) + 16; /* vectors may reach beyond the last row */
    if (base) forbid((float *)(void *)base + (size_t)at, GUARD_BYTES);
    at += GUARD_BYTES / 4;
  }
  return at;
}

/* Sets sizes of a run; lays out its tables behind each other, those of WORDS last, in `base` where that is given.
   Returns the bytes of all of it, as a double: base, scratch, tables, the books of the search. */
static double lay_out(laconic_run *run, uint32_t most_positions, size_t *base) {
  const plan_header *h = run->plan.header;
  run->most_positions = h->side ? h->positions : most_positions;
  run->length = tokens_of(h, run->decoding);
  run->slots = run->count * run->decoding->beam; /* at most 2^32: see laconic_workspace */
  run->panel_capacity = panel_capacity_of(run->slots);
  double at = (double)round_up(h->buffers * sizeof(size_t), 64) / 4, scratch = at;
  at += (double)round_up(h->scratch, 16) + GUARD_BYTES / 4;
  for (uint32_t i = 0; base && i < h->buffers; i++)
    if (run->plan.buffers[i].space == PIXELS) base[i] = (size_t)scratch + run->plan.buffers[i].offset;
  at = lay_out_tables(run, 0, at, base);
  run->cleared = at;
  at = lay_out_tables(run, 1, at, base);
  return 4.0 * at + search_bytes(run);
}

static int take_workspace(laconic_run *run, uint32_t most_positions, void *workspace, size_t bytes) {
  run->count = run->images->count;
  if (!sound_decoding(run->plan.header, run->decoding)) return LACONIC_BAD_INPUT;
  if ((double)run->count * run->decoding->beam > 1e6) return LACONIC_BAD_INPUT;
  double needed = lay_out(run, most_positions, NULL);
  if (!workspace || (uintptr_t)workspace % 64 || needed > (double)bytes) return LACONIC_NO_ROOM;
  permit(workspace, bytes);
  const plan_header *h = run->plan.header;
  size_t books = (size_t)needed - (size_t)search_bytes(run);
  size_t maps = round_up(h->buffers * sizeof(size_t), 64) + 4 * round_up(h->scratch, 16); /* have no columns that pad */
  /* Columns that pad must not be slow or odd numbers; words have none, and are written before they are read. */
  memset((uint8_t *)workspace + maps, 0, 4 * (size_t)run->cleared - maps);
  run->memory = workspace, run->base = workspace;
  lay_out(run, most_positions, workspace);
  run->books = (uint8_t *)workspace + books;
  return LACONIC_OK;
}

#endif
