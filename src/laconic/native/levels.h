/* Names of what each level of the engine exports, and the table that laconic.c chooses from. */
#ifndef LACONIC_LEVELS_H
#define LACONIC_LEVELS_H

#include "laconic.h"

#ifndef LACONIC_LEVEL
#define LACONIC_LEVEL native
#endif
#define LEVEL_JOINED(name, level) name##_##level
#define LEVEL_OF(name, level) LEVEL_JOINED(name, level)
#define LEVEL(name) LEVEL_OF(name, LACONIC_LEVEL)

#define DECLARE_LEVEL(level)                                                                                           \
  int LEVEL_OF(laconic_caption, level)(const void *, const laconic_decoding *, const laconic_images *, void *, size_t, \
                                       const laconic_captions *, uint32_t *);                                          \
  int LEVEL_OF(laconic_features, level)(const void *, const uint8_t *, void *, size_t, float *, float *);              \
  size_t LEVEL_OF(laconic_workspace, level)(const void *, const laconic_decoding *, uint32_t, uint32_t);               \
  int LEVEL_OF(laconic_check_operations, level)(const void *);

DECLARE_LEVEL(native)
DECLARE_LEVEL(v2)
DECLARE_LEVEL(v3)
DECLARE_LEVEL(v4)

int chosen_level(void); /* 0, 1, 2 for v2, v3, v4; 0 where there is one level */

#endif
