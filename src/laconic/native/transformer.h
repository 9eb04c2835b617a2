/* Layer norm, geometry of boxes, attention with scaled products. */
#ifndef LACONIC_TRANSFORMER_H
#define LACONIC_TRANSFORMER_H

#include "mathematics.h"
#include "run.h"

static void run_layer_norm(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_layer_norm(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_relate(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_relate(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_attend_related(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_attend_related(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_attend_words(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_attend_words(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_attend_positions(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_attend_positions(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

#endif
