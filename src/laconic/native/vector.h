/* Vectors of floats in the words of GCC and Clang: the same source for every processor.

   LANES floats are the unit of everything: columns of a table are padded to a multiple of it. On processors with
   512-bit vectors it stays 8, since few captions are in the making at a time; matrix products use 16 there. */
#ifndef LACONIC_VECTOR_H
#define LACONIC_VECTOR_H

#include <stdint.h>
#include <string.h>

#include "inline.h"

#if defined(__AVX__)
#define LANES 8u
#else
#define LANES 4u
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float vec_unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec load(const float *from) { return *(const vec_unaligned *)from; }
INLINE void store(float *to, vec x) { *(vec_unaligned *)to = x; }
INLINE vec splat(float x) { return x - (vec){0}; }
INLINE ivec bits_of(vec x) { return (ivec)x; }
INLINE vec choose(ivec where, vec yes, vec no) { return (vec)(((ivec)yes & where) | ((ivec)no & ~where)); }
INLINE vec least(vec a, vec b) { return choose(a < b, a, b); }
INLINE vec most(vec a, vec b) { return choose(a > b, a, b); }

INLINE float sum_of(vec x) {
  float total = x[0];
  for (uint32_t i = 1; i < LANES; i++) total += x[i];
  return total;
}

INLINE float most_of(vec x) {
  float found = x[0];
  for (uint32_t i = 1; i < LANES; i++) found = x[i] > found ? x[i] : found;
  return found;
}

#endif
