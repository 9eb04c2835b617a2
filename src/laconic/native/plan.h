/* The bytes of a plan: what laconic.runtime.program writes and the engine executes. Version 1.

   Everything is little-endian 32-bit words. A plan is a header, tables of buffers, matrices and operations, the arena
   (weights and constants, prepacked), and the words of the vocabulary. Nothing in it is a pointer, so that it can be
   mapped from a file and shared by threads. Every section starts at a multiple of 64 bytes.

   All numbers that an operation works on are tables of float32: rows are features, columns are whatever is computed
   side by side (pixels, positions, images, or captions in the making). Which of these it is, is a buffer's space. */
#ifndef LACONIC_PLAN_H
#define LACONIC_PLAN_H

#include <stdint.h>

#define PLAN_MAGIC "LACOPLAN"
#define PLAN_VERSION 1u
#define PLAN_ALIGNMENT 64u
#define NONE 0xFFFFFFFFu

enum space {
  PIXELS = 0,    /* one column per pixel of a map; for the encoder of one image at a time */
  POSITIONS = 1, /* one column per region or cell of the grid of an image */
  PAIRS = 2,     /* one column per pair of positions of an image, row-major */
  IMAGES = 3,    /* one column per image */
  ROWS = 4,      /* one column per caption in the making */
  WORDS = 5,     /* what a transformer keeps of each word of each caption: see attend_words */
  SPACES = 6
};

enum form { DENSE = 0, SPARSE = 1, TABLE = 2, SPARSE_TABLE = 3, FORMS = 4 };
enum width { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, WIDTHS = 3 };
enum activation { LINEARLY = 0, RELU = 1, RELU6 = 2, LOG_RELATION = 3, ACTIVATIONS = 4 };
enum start { FROM_BIAS = 0, FROM_SELF = 1, FROM_IMAGE = 2, STARTS = 3 };

typedef struct {
  uint8_t magic[8];
  uint32_t version, bytes;
  uint32_t buffers_at, buffers; /* offset from the plan's first byte, and count */
  uint32_t matrices_at, matrices;
  uint32_t operations_at, operations;
  uint32_t encode, image, images, step; /* operations of the four programs, one behind the other; their sum is all */
  uint32_t arena_at, arena_bytes;
  uint32_t words_at, words_bytes; /* UTF-8, one word per line, each ended by a line feed */
  uint32_t vocabulary;
  uint32_t pad, unk, bos, eos;
  uint32_t side; /* of the square of pixels that is read; 0: features are given */
  uint32_t channels, pooled_channels;
  uint32_t positions;                   /* of an image: exactly so many with pixels, at most so many with features */
  uint32_t grid, pooled, boxes, logits; /* buffers; NONE where nothing reads them */
  uint32_t scratch;                     /* floats that all PIXELS buffers share */
  uint32_t tokenization;                /* 0 words, 1 sentencepiece */
  float scale[3], shift[3];             /* byte / scale - shift, for red, green and blue */
  uint32_t words;        /* where digits spell words, as in spelling.h: how many there are in the list; else 0 */
  uint32_t reserved[24]; /* 0 */
} plan_header;

typedef struct {
  uint32_t rows, space;
  uint32_t columns;   /* PIXELS: how many */
  uint32_t offset;    /* PIXELS: first float in the scratch, a multiple of 16 */
  uint32_t kept;      /* POSITIONS: 1: for every image, not for one at a time. ROWS: so many rows, to the next word */
  uint32_t kept_from; /* ROWS: the first of them */
  uint32_t reserved[2];
} plan_buffer;

typedef struct {
  uint32_t rows, columns;
  uint32_t form, width;
  float step;         /* INT8: value = code * step */
  uint32_t bias;      /* rows floats at this byte of the arena, or NONE */
  uint32_t at, bytes; /* the packed weights, in the arena; see linear.h and tables.h */
  uint32_t block;     /* columns per block of a sparse matrix */
  uint32_t non_zeros;
  uint32_t reserved[6];
} plan_matrix;

typedef struct {
  uint32_t code;
  uint32_t arguments[15]; /* by the operation, in the order that laconic.runtime.operations names them; then 0 */
} plan_operation;

/* In the order of laconic.runtime.operations.OPERATIONS. */
enum code {
  READ_PIXELS,
  CONVOLVE,
  DEPTHWISE,
  MAX_POOL,
  ADD,
  MEAN,
  LINEAR,
  INITIAL,
  EMBED,
  LSTM,
  GRU_RESET,
  GRU_UPDATE,
  FACTOR,
  ATTEND_ADDITIVE,
  LAYER_NORM,
  RELATE,
  ATTEND_RELATED,
  ATTEND_WORDS,
  ATTEND_POSITIONS,
  GLU,
  CODES
};

#endif
