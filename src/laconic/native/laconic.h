/* laconic: captions from pixels or region features, in plain C.

   A plan is a file that `laconic plan` writes from a packed captioner. Read it into memory that is aligned to 64
   bytes, check it once, and caption as often as you like; any number of threads may share one plan, each with a
   workspace of its own. Nothing is allocated here, and no function of the C library is called but memory copies. */
#ifndef LACONIC_H
#define LACONIC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32) && defined(LACONIC_SHARED_LIBRARY)
#define LACONIC_API __declspec(dllexport)
#elif defined(__GNUC__)
#define LACONIC_API __attribute__((visibility("default")))
#else
#define LACONIC_API
#endif

typedef struct {
  uint32_t beam;          /* captions kept at a time; 1 is greedy search */
  uint32_t max_length;    /* words of a caption at most, 1 to 500 */
  uint32_t allow_unknown; /* 1 lets it say the unknown word */
  uint32_t reserved;      /* 0 */
  double length_penalty;  /* log-probability / length ** this, 0 to 10 */
} laconic_decoding;

typedef struct {
  uint32_t count;            /* images */
  const uint8_t *pixels;     /* count x side x side x 3, RGB; of plans that read pixels */
  const float *features;     /* the regions of all images one behind the other, channels floats each */
  const float *boxes;        /* x1, y1, x2, y2 of each region, 0 to 1; where the plan reads boxes */
  const uint32_t *positions; /* regions of each image, at least 1; with features */
} laconic_images;

typedef struct {     /* for each image `beam` captions, best first */
  int32_t *tokens;   /* count x beam x max_length x digits; ids, the end's among them */
  float *log_probs;  /* likewise; of each token */
  double *scores;    /* count x beam */
  uint32_t *lengths; /* count x beam; 0: there are fewer captions than that */
} laconic_captions;

enum laconic_error {
  LACONIC_OK = 0,
  LACONIC_NOT_A_PLAN,    /* other bytes, or cut off */
  LACONIC_OTHER_VERSION, /* made for another version of this library */
  LACONIC_DAMAGED,       /* contradicts itself */
  LACONIC_BAD_INPUT,     /* images or options that the plan cannot take */
  LACONIC_NO_ROOM,       /* the workspace is too small or not aligned */
  LACONIC_DIVERGED,      /* gave numbers that are no probabilities: damaged weights or features */
  LACONIC_STUCK          /* all words that are allowed have probability 0 */
};

/* LACONIC_OK, or why the bytes are no sound plan. Everything is checked: a plan that passes is safe to run. */
LACONIC_API int laconic_check(const void *plan, size_t bytes);

/* Rows and columns of the square of pixels that a plan reads; 0: it reads region features. */
LACONIC_API uint32_t laconic_side(const void *plan);

/* Bytes of workspace for `images` images of at most `positions` regions (ignored with pixels) at once; 0 where the
   options are not possible or it would take more than a size_t counts. */
LACONIC_API size_t laconic_workspace(const void *plan, const laconic_decoding *decoding, uint32_t images,
                                     uint32_t positions);

/* Captions of images. `workspace` is aligned to 64 bytes. On an error `failed`, if given, is the image it is about. */
LACONIC_API int laconic_caption(const void *plan, const laconic_decoding *decoding, const laconic_images *images,
                                void *workspace, size_t bytes, const laconic_captions *captions, uint32_t *failed);

/* What the encoder makes of one image: grid, positions x channels floats, and pooled, pooled_channels floats; either
   may be null. The workspace is that of one image. */
LACONIC_API int laconic_features(const void *plan, const uint8_t *pixels, void *workspace, size_t bytes, float *grid,
                                 float *pooled);

/* Tokens of a word: 1, or more where a plan spells words by digits. */
LACONIC_API uint32_t laconic_digits(const void *plan);

/* The word that so many tokens say, as laconic_word takes it: the token itself where words are not spelled; -1 where
   it is none. */
LACONIC_API int32_t laconic_number(const void *plan, const int32_t *tokens);

/* The text of a word, `length` bytes of UTF-8 that no zero ends; null for a number that there is not. */
LACONIC_API const char *laconic_word(const void *plan, int32_t number, size_t *length);

/* What is wrong, in words. */
LACONIC_API const char *laconic_message(int error);

/* The instruction set in use, such as "x86-64-v3". `laconic_use` chooses another, by name; 0 if it is not possible. */
LACONIC_API const char *laconic_level(void);
LACONIC_API int laconic_use(const char *level);

#ifdef __cplusplus
}
#endif
#endif
