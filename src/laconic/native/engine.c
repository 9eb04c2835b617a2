/* The engine for one instruction set: all of it in one translation unit, compiled once per level of x86-64.

   LACONIC_LEVEL is the suffix of what it exports: see levels.h. */
#include "levels.h"

#include "attention.h"
#include "convolution.h"
#include "depthwise.h"
#include "flow.h"
#include "linear.h"
#include "pooling.h"
#include "recurrent.h"
#include "search.h"
#include "transformer.h"
#include "workspace.h"

static const struct {
  operation_run *run;
  operation_check *check;
} OPERATIONS[CODES] = {
    [READ_PIXELS] = {run_read_pixels, check_read_pixels},
    [CONVOLVE] = {run_convolve, check_convolve},
    [DEPTHWISE] = {run_depthwise, check_depthwise},
    [MAX_POOL] = {run_max_pool, check_max_pool},
    [ADD] = {run_add, check_add},
    [MEAN] = {run_mean, check_mean},
    [LINEAR] = {run_linear, check_linear},
    [INITIAL] = {run_initial, check_initial},
    [EMBED] = {run_embed, check_embed},
    [LSTM] = {run_lstm, check_lstm},
    [GRU_RESET] = {run_gru_reset, check_gru_reset},
    [GRU_UPDATE] = {run_gru_update, check_gru_update},
    [FACTOR] = {run_factor, check_factor},
    [ATTEND_ADDITIVE] = {run_attend_additive, check_attend_additive},
    [LAYER_NORM] = {run_layer_norm, check_layer_norm},
    [RELATE] = {run_relate, check_relate},
    [ATTEND_RELATED] = {run_attend_related, check_attend_related},
    [ATTEND_WORDS] = {run_attend_words, check_attend_words},
    [ATTEND_POSITIONS] = {run_attend_positions, check_attend_positions},
    [GLU] = {run_glu, check_glu},
};

static void run_program(const laconic_run *run, uint32_t first, uint32_t count) {
  for (uint32_t i = first; i < first + count; i++)
    OPERATIONS[run->plan.operations[i].code].run(run, run->plan.operations[i].arguments);
}

/* Features of the image that is at work, which the caller has given, into the tables that the plan reads. */
static void take_features(const laconic_run *run) {
  const plan_header *h = run->plan.header;
  table grid = table_of(run, h->grid, 0);
  for (uint32_t p = 0; p < run->positions; p++)
    for (uint32_t k = 0; k < h->channels; k++)
      grid.at[k * grid.stride + p] = run->features[(size_t)p * h->channels + k];
  if (h->pooled == NONE) return;
  table pooled = table_of(run, h->pooled, 0);
  for (uint32_t k = 0; k < h->channels; k++) {
    float sum = 0.0f;
    for (uint32_t p = 0; p < run->positions; p++) sum += grid.at[k * grid.stride + p];
    pooled.at[k * pooled.stride + run->image] = sum / (float)run->positions;
  }
}

/* The programs that see images: `encode` and `image` for each of them, then `images` for all. */
static void see(laconic_run *run) {
  const plan_header *h = run->plan.header;
  size_t before = 0, side = h->side;
  for (run->image = 0; run->image < run->count; run->image++) {
    run->positions = side ? h->positions : run->images->positions[run->image];
    if (side) {
      run->pixels = run->images->pixels + run->image * side * side * 3;
      run_program(run, 0, h->encode);
    } else {
      run->features = run->images->features + before * h->channels;
      if (run->images->boxes) run->boxes = run->images->boxes + before * 4;
      take_features(run);
    }
    run_program(run, h->encode, h->image);
    before += run->positions;
  }
  run->image = run->count - 1; /* what is not about one image, such as a damaged plan's, finds the last one */
  run_program(run, h->encode + h->image, h->images);
}

static void run_step(laconic_run *run) {
  const plan_header *h = run->plan.header;
  run_program(run, h->encode + h->image + h->images, h->step);
}

static int fits(const laconic_run *run) {
  const plan_header *h = run->plan.header;
  const laconic_images *given = run->images;
  if (h->side) return given->pixels != NULL;
  if (!given->features || !given->positions || (h->boxes != NONE && !given->boxes)) return 0;
  for (uint32_t i = 0; i < given->count; i++)
    if (given->positions[i] < 1 || given->positions[i] > h->positions) return 0;
  return 1;
}

/* At each level, since columns are padded to its vectors. */
size_t LEVEL(laconic_workspace)(const void *plan, const laconic_decoding *decoding, uint32_t images,
                                uint32_t positions) {
  laconic_run run = {.plan = view_plan(plan), .decoding = decoding, .count = images};
  if (!images || !sound_decoding(run.plan.header, decoding) || (double)images * decoding->beam > 1e6) return 0;
  if (!run.plan.header->side && (positions < 1 || positions > run.plan.header->positions)) return 0;
  double bytes = lay_out(&run, positions, NULL);
  return bytes < (double)(SIZE_MAX / 2) ? (size_t)bytes : 0;
}

int LEVEL(laconic_caption)(const void *plan, const laconic_decoding *decoding, const laconic_images *images,
                           void *workspace, size_t bytes, const laconic_captions *captions, uint32_t *failed) {
  laconic_run run = {.plan = view_plan(plan), .decoding = decoding, .images = images};
  if (failed) *failed = 0;
  if (!images->count || !fits(&run)) return LACONIC_BAD_INPUT;
  uint32_t most = 0;
  for (uint32_t i = 0; !run.plan.header->side && i < images->count; i++)
    if (images->positions[i] > most) most = images->positions[i];
  int error = take_workspace(&run, most, workspace, bytes);
  if (error) return error;
  see(&run);
  return search(&run, run_step, captions, failed);
}

int LEVEL(laconic_features)(const void *plan, const uint8_t *pixels, void *workspace, size_t bytes, float *grid,
                            float *pooled) {
  const laconic_decoding one = {1, 1, 0, 0, 0.0};
  const laconic_images image = {1, pixels, NULL, NULL, NULL};
  laconic_run run = {.plan = view_plan(plan), .decoding = &one, .images = &image};
  const plan_header *h = run.plan.header;
  if (!h->side || !pixels || (pooled && h->pooled == NONE)) return LACONIC_BAD_INPUT;
  int error = take_workspace(&run, 0, workspace, bytes);
  if (error) return error;
  run.positions = h->positions, run.pixels = pixels;
  run_program(&run, 0, h->encode);
  table from = table_of(&run, h->grid, 0);
  for (uint32_t p = 0; grid && p < h->positions; p++)
    for (uint32_t k = 0; k < h->channels; k++) grid[(size_t)p * h->channels + k] = from.at[k * from.stride + p];
  if (!pooled) return LACONIC_OK;
  from = table_of(&run, h->pooled, 0);
  for (uint32_t k = 0; k < h->pooled_channels; k++) pooled[k] = from.at[k * from.stride];
  return LACONIC_OK;
}

/* Every operation of a plan whose tables have been checked. */
int LEVEL(laconic_check_operations)(const void *plan) {
  plan_view view = view_plan(plan);
  uint64_t bytes =
      0; /* matrices share nothing, so that looking at each of them takes no longer than reading the plan */
  for (uint32_t i = 0; i < view.header->matrices; i++) {
    bytes += view.matrices[i].bytes;
    if (bytes > view.header->arena_bytes || !check_any_matrix(&view, view.matrices + i)) return LACONIC_DAMAGED;
  }
  for (uint32_t i = 0; i < view.header->operations; i++) {
    const plan_operation *operation = view.operations + i;
    if (operation->code >= CODES || !OPERATIONS[operation->code].check(&view, operation->arguments))
      return LACONIC_DAMAGED;
  }
  return check_flow(&view) ? LACONIC_OK : LACONIC_DAMAGED;
}
