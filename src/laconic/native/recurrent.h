/* Word vectors, LSTM, GRU. */
#ifndef LACONIC_RECURRENT_H
#define LACONIC_RECURRENT_H

#include "mathematics.h"
#include "run.h"

#include "tables.h"

static void run_embed(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_embed(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_lstm(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_lstm(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_gru_reset(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_gru_reset(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_gru_update(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_gru_update(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

#endif
