/* The operations of encoders: convolutions, pooling. */
#ifndef LACONIC_CONVOLUTION_H
#define LACONIC_CONVOLUTION_H

#include "mathematics.h"
#include "run.h"

static void run_read_pixels(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_read_pixels(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_convolve(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_convolve(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_depthwise(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_depthwise(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_max_pool(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_max_pool(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_add(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_add(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

static void run_mean(const laconic_run *run, const uint32_t *a) { (void)run, (void)a; }
static int check_mean(const plan_view *plan, const uint32_t *a) { return (void)plan, (void)a, 0; }

#endif
