/* One call of laconic_caption: where its tables lie in the workspace, and what a program is working on just now. */
#ifndef LACONIC_RUN_H
#define LACONIC_RUN_H

#include "spelling.h"
#include "vector.h"
#include "view.h"

#define PANEL 64u /* captions in the making that are computed side by side, at most */
#define MOST_BEAMS 1000u
#define MOST_TOKENS 500u
#define MOST_PENALTY 10.0

typedef struct {
  plan_view plan;
  const laconic_decoding *decoding;
  const laconic_images *images;
  uint32_t count;          /* images */
  uint32_t most_positions; /* of any of them */
  uint32_t length;         /* tokens of a caption, at most */
  uint32_t slots;          /* captions in the making, of all images, at most */
  uint32_t panel_capacity; /* columns of a panel that memory is kept for */
  float *memory;           /* the workspace */
  double cleared;          /* floats of it up to the tables of WORDS */
  const size_t *base;      /* first float of each buffer */
  uint8_t *books;          /* of the search */
  /* what the programs `encode` and `image` work on */
  uint32_t image;
  const uint8_t *pixels; /* of that image */
  const float *features, *boxes;
  uint32_t positions;
  /* what the program `step` works on */
  uint32_t panel, columns, lanes; /* its number, captions in it, and those padded to 4, 8, 16, 32 or 64 */
  uint32_t word;                  /* how many have been emitted before */
  const int32_t *tokens;          /* columns: the last word of each */
  const uint32_t *image_of;       /* columns: the image that each looks at */
  const uint32_t
      *ancestors; /* word + 1 rows of `slots`: the slot in which the caption now in a slot was at each word */
} laconic_run;

typedef struct { /* rows of a buffer, from one on */
  float *at;
  uint32_t rows, columns;
  size_t stride; /* floats from one row to the next: a multiple of LANES, at least columns */
} table;

/* Captions of a panel, padded: doubled from `least` on until they fit, PANEL at most. */
INLINE uint32_t doubled_to(uint32_t columns, uint32_t least) {
  while (least < columns && least < PANEL) least *= 2;
  return least;
}

INLINE uint32_t lanes_of(uint32_t columns) { return doubled_to(columns, LANES); }

/* What memory is kept for: the same whatever LANES are, so that a workspace is as large at every level. */
INLINE uint32_t panel_capacity_of(uint32_t columns) { return doubled_to(columns, 8); }

/* Rows of a POSITIONS buffer of any image that it is kept for. */
INLINE table table_of_image(const laconic_run *run, uint32_t buffer, uint32_t row, uint32_t image) {
  const plan_buffer *b = run->plan.buffers + buffer;
  size_t stride = round_up(run->most_positions, 16);
  float *at = run->memory + run->base[buffer] + (b->kept ? image * (size_t)b->rows * stride : 0);
  uint32_t columns = run->plan.header->side ? run->most_positions : run->images->positions[image];
  return (table){at + row * stride, b->rows - row, columns, stride};
}

/* A buffer from `row` on, as the operation at work sees it: of its image, or of its panel. */
static table table_of(const laconic_run *run, uint32_t buffer, uint32_t row) {
  const plan_buffer *b = run->plan.buffers + buffer;
  float *at = run->memory + run->base[buffer];
  uint32_t columns = 0;
  size_t stride = 0;
  switch (b->space) {
    case PIXELS: columns = b->columns, stride = round_up(columns, 16); break;
    case POSITIONS: return table_of_image(run, buffer, row, run->image);
    case PAIRS: columns = run->positions * run->positions, stride = round_up(columns, 16); break;
    case IMAGES: columns = run->count, stride = round_up(columns, 16); break;
    case ROWS:
      columns = run->columns, stride = run->lanes;
      if (b->kept) at += run->panel * (size_t)b->rows * run->panel_capacity;
      break;
    default: break;
  }
  return (table){at + row * stride, b->rows - row, columns, stride};
}

/* What a WORDS buffer keeps of the caption that was in `slot` after `word` words: `rows` floats. */
INLINE float *kept_word(const laconic_run *run, uint32_t buffer, uint32_t word, uint32_t slot) {
  size_t rows = round_up(run->plan.buffers[buffer].rows, 16);
  return run->memory + run->base[buffer] + ((size_t)word * run->slots + slot) * rows;
}

/* Operations are functions of these forms. `check` is asked once, when a plan is opened: 0, or an error. */
typedef void operation_run(const laconic_run *run, const uint32_t *arguments);
typedef int operation_check(const plan_view *plan, const uint32_t *arguments);

#endif
