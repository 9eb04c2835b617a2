/* Tables of word vectors, a row for each word, looked up rather than multiplied by. */
#ifndef LACONIC_TABLES_H
#define LACONIC_TABLES_H

#include "linear.h"
#include "run.h"

static int check_table(const plan_view *plan, const plan_matrix *m) { return (void)plan, (void)m, 0; }

static int check_any_matrix(const plan_view *plan, const plan_matrix *m) {
  const plan_header *h = plan->header;
  if (m->rows < 1 || m->columns < 1 || m->rows > 1u << 24 || m->columns > 1u << 24) return 0;
  if (m->form >= FORMS || m->width >= WIDTHS || m->at % PLAN_ALIGNMENT) return 0;
  if (m->at > h->arena_bytes || m->bytes > h->arena_bytes - m->at) return 0;
  if (m->bias != NONE && !has_constants(plan, m->bias, m->rows)) return 0;
  return m->form >= TABLE ? check_table(plan, m) : check_matrix(plan, m);
}

#endif
