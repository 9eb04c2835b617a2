/* Additive attention over the positions of an image. */
#ifndef LACONIC_ATTENTION_H
#define LACONIC_ATTENTION_H

#include "mathematics.h"
#include "run.h"

static void run_factor(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_factor(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_attend_additive(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_attend_additive(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

#endif
