/* Values of weights as they lie in the arena, four at a time: float32, bfloat16, or codes that a step scales. */
#ifndef LACONIC_VALUES_H
#define LACONIC_VALUES_H

#include "plan.h"
#include "vector.h"

#if defined(__AVX512F__)
typedef float vec16 __attribute__((vector_size(64)));
#endif

typedef float vec4 __attribute__((vector_size(16)));
typedef uint16_t four_halves __attribute__((vector_size(8)));
typedef uint32_t four_words __attribute__((vector_size(16)));
typedef int32_t four_numbers __attribute__((vector_size(16)));

INLINE uint32_t value_bytes(uint32_t width) { return width == FLOAT32 ? 4 : width == BFLOAT16 ? 2 : 1; }

INLINE vec4 four_values(const uint8_t *at, uint32_t width, float step) {
  vec4 values;
  if (width == BFLOAT16) {
    four_halves halves;
    memcpy(&halves, at, sizeof halves);
    return (vec4)(__builtin_convertvector(halves, four_words) << 16);
  }
  if (width == INT8) {
    uint32_t codes; /* each moved to the top of a word, and down again with its sign: GCC widens bytes one by one */
    memcpy(&codes, at, sizeof codes);
    four_words raised = codes * (four_words){1u << 24, 1u << 16, 1u << 8, 1u};
    four_numbers numbers = (four_numbers)raised >> 24;
    return __builtin_convertvector(numbers, vec4) * (vec4){step, step, step, step};
  }
  memcpy(&values, at, sizeof values);
  return values;
}

/* One of the four. */
INLINE float one_value(const uint8_t *at, uint32_t i, uint32_t width, float step) {
  float value;
  if (width == INT8) return (float)((const int8_t *)at)[i] * step;
  if (width == BFLOAT16) {
    uint32_t bits = (uint32_t)((const uint16_t *)(const void *)at)[i] << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
  }
  memcpy(&value, at + 4 * i, sizeof value);
  return value;
}

#endif
