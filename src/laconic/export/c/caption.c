/* Captions a photo without Python: caption PLAN PIXELS

   PIXELS is a file of side x side x 3 bytes, red, green and blue, of the side that the plan was made for, as of
   `convert photo.jpg -resize 224x224! -depth 8 rgb:photo.rgb`. It is one of the files of
   `laconic export FILE DIR --to c`. */
#include <stdio.h>
#include <stdlib.h>

#include "laconic.h"

enum { BEAM = 3, WORDS = 20 };

static void *read_file(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) exit((perror(path), 2));
  *bytes = (size_t)ftell(file), rewind(file);
  void *room = aligned_alloc(64, (*bytes + 63) / 64 * 64);
  if (!room || fread(room, 1, *bytes, file) != *bytes) exit((perror(path), 2));
  return fclose(file), room;
}

int main(int count, char **arguments) {
  if (count != 3) return fprintf(stderr, "usage: %s PLAN PIXELS\n", arguments[0]), 2;
  size_t bytes, pixel_bytes, length;
  const void *plan = read_file(arguments[1], &bytes), *pixels = read_file(arguments[2], &pixel_bytes);
  int error = laconic_check(plan, bytes);
  if (!error && pixel_bytes != (size_t)3 * laconic_side(plan) * laconic_side(plan)) error = LACONIC_BAD_INPUT;
  if (error || !pixel_bytes) return fprintf(stderr, "%s\n", laconic_message(error ? error : LACONIC_BAD_INPUT)), 2;

  const laconic_decoding decoding = {.beam = BEAM, .max_length = WORDS};
  const laconic_images images = {.count = 1, .pixels = pixels};
  const uint32_t digits = laconic_digits(plan); /* tokens of a word: 1, unless the plan spells words */
  int32_t *tokens = calloc(BEAM * WORDS * digits, sizeof *tokens);
  float *log_probs = calloc(BEAM * WORDS * digits, sizeof *log_probs);
  double scores[BEAM];
  uint32_t lengths[BEAM];
  const laconic_captions captions = {tokens, log_probs, scores, lengths};
  size_t room = (laconic_workspace(plan, &decoding, 1, 0) + 63) / 64 * 64;
  error = laconic_caption(plan, &decoding, &images, aligned_alloc(64, room), room, &captions, NULL);
  if (error) return fprintf(stderr, "%s\n", laconic_message(error)), 2;

  for (uint32_t i = 0; i + digits <= lengths[0]; i += digits) { /* of the best caption; its end is no word */
    const char *word = laconic_word(plan, laconic_number(plan, tokens + i), &length);
    if (word && *word != '<') printf("%s%.*s", i ? " " : "", (int)length, word); /* not <eos> and its like */
  }
  return puts(""), 0;
}
