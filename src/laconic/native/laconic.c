/* The public functions: they check a plan, choose an instruction set, and hand on to the engine of that level.

   As one file for an application: compile laconic.c and engine.c with the flags of the processor (-march=...). With
   LACONIC_LEVELS the library has engine.c three times, for x86-64 levels v2, v3 and v4, and chooses at run time. */
#include "laconic.h"

#include "check.h"
#include "levels.h"

#ifdef LACONIC_VECTOR_H
#error "this file is compiled for no particular processor: it must know nothing of vectors"
#endif

typedef struct {
  const char *name;
  int (*caption)(const void *, const laconic_decoding *, const laconic_images *, void *, size_t,
                 const laconic_captions *, uint32_t *);
  int (*features)(const void *, const uint8_t *, void *, size_t, float *, float *);
  size_t (*workspace)(const void *, const laconic_decoding *, uint32_t, uint32_t);
  int (*check_operations)(const void *);
} engine_level;

#define ROW(name, level)                                                                                          \
  {name, LEVEL_OF(laconic_caption, level), LEVEL_OF(laconic_features, level), LEVEL_OF(laconic_workspace, level), \
   LEVEL_OF(laconic_check_operations, level)}

#ifdef LACONIC_LEVELS
#include "processor.h"
static const engine_level LEVELS[] = {ROW("x86-64-v2", v2), ROW("x86-64-v3", v3), ROW("x86-64-v4", v4)};
#else
static int processor_level(void) { return 0; }
static const engine_level LEVELS[] = {ROW("native", native)};
#endif

#define LEVEL_COUNT ((int)(sizeof LEVELS / sizeof LEVELS[0]))

static int chosen = -1; /* written with one value, whoever is first */

int chosen_level(void) {
  if (chosen < 0) chosen = processor_level();
  return chosen;
}

static const engine_level *level(void) { return LEVELS + chosen_level(); }

const char *laconic_level(void) { return level()->name; }

int laconic_use(const char *name) {
  for (int i = 0; i <= processor_level() && i < LEVEL_COUNT; i++)
    for (size_t k = 0; LEVELS[i].name[k] == name[k]; k++)
      if (!name[k]) return chosen = i, 1;
  return 0;
}

int laconic_check(const void *plan, size_t bytes) {
  int error = check_tables(plan, bytes);
  return error ? error : level()->check_operations(plan);
}

uint32_t laconic_side(const void *plan) { return ((const plan_header *)plan)->side; }

size_t laconic_workspace(const void *plan, const laconic_decoding *decoding, uint32_t images, uint32_t positions) {
  return level()->workspace(plan, decoding, images, positions);
}

int laconic_caption(const void *plan, const laconic_decoding *decoding, const laconic_images *images, void *workspace,
                    size_t bytes, const laconic_captions *captions, uint32_t *failed) {
  return level()->caption(plan, decoding, images, workspace, bytes, captions, failed);
}

int laconic_features(const void *plan, const uint8_t *pixels, void *workspace, size_t bytes, float *grid,
                     float *pooled) {
  return level()->features(plan, pixels, workspace, bytes, grid, pooled);
}

uint32_t laconic_digits(const void *plan) { return spelling_of(plan).digits; }

int32_t laconic_number(const void *plan, const int32_t *tokens) { return word_number(plan, tokens); }

const char *laconic_word(const void *plan, int32_t number, size_t *length) {
  const plan_header *h = plan;
  const char *word = (const char *)plan + h->words_at, *end = word + h->words_bytes;
  *length = 0;
  for (int32_t i = 0; number >= 0 && word < end; i++) {
    size_t size = 0;
    while (word[size] != '\n') size++;
    if (i == number) return *length = size, word;
    word += size + 1;
  }
  return NULL;
}

const char *laconic_message(int error) {
  static const char *const MESSAGES[] = {"all is well",
                                         "not a plan, or cut off",
                                         "a plan of another version of laconic; make it again",
                                         "the plan is damaged; make it again",
                                         "images or options that this plan cannot take",
                                         "the workspace is too small, or not aligned to 64 bytes",
                                         "gave numbers that are no probabilities: weights or features are damaged",
                                         "all words that are allowed have probability 0"};
  return error >= 0 && error < (int)(sizeof MESSAGES / sizeof MESSAGES[0]) ? MESSAGES[error] : "unknown error";
}
