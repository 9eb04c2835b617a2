/* Sparse rows times vectors of one size. No include guard: sparse.h includes it once per size, with VECTOR and its
   number of floats, FLOATS, a multiple of 4, and KERNEL(name) to tell the functions apart. */

typedef float KERNEL(unaligned) __attribute__((vector_size(4 * FLOATS), aligned(4), may_alias));

/* Four values, again and again: the processor spreads one of each four faster than one of all. */
INLINE VECTOR KERNEL(repeat)(vec4 w) {
#if FLOATS == 16
  vec twice = sparse_repeat_of_lanes(w);
  return __builtin_shufflevector(twice, twice, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
#elif FLOATS == 8
  return __builtin_shufflevector(w, w, 0, 1, 2, 3, 0, 1, 2, 3);
#else
  return w;
#endif
}

#if FLOATS == 16
#define SPREAD(w, i)                                                                                                \
  __builtin_shufflevector(w, w, i, i, i, i, i + 4, i + 4, i + 4, i + 4, i + 8, i + 8, i + 8, i + 8, i + 12, i + 12, \
                          i + 12, i + 12)
#elif FLOATS == 8
#define SPREAD(w, i) __builtin_shufflevector(w, w, i, i, i, i, i + 4, i + 4, i + 4, i + 4)
#else
#define SPREAD(w, i) __builtin_shufflevector(w, w, i, i, i, i)
#endif

INLINE VECTOR KERNEL(spread)(VECTOR w, uint32_t i) {
  switch (i) {
    case 0: return SPREAD(w, 0);
    case 1: return SPREAD(w, 1);
    case 2: return SPREAD(w, 2);
    default: return SPREAD(w, 3);
  }
}

INLINE VECTOR KERNEL(splat)(float w) { return w - (VECTOR){0}; }

/* `together` rows of a group, from `first` on, times `vectors` vectors of every row of x: all known beforehand, so that
   the sums stay in registers. */
INLINE void KERNEL(rows)(const uint8_t *steps, uint32_t count, const uint16_t *rows, sparse_operands o, uint32_t width,
                         uint32_t first, uint32_t together, uint32_t vectors) {
  VECTOR sums[GROUP][8];
  float *y[GROUP];
  for (uint32_t r = 0; r < together; r++) y[r] = o.y + rows[first + r] * o.y_stride;
  for (uint32_t r = 0; r < together; r++)
    for (uint32_t v = 0; v < vectors; v++) sums[r][v] = ((const KERNEL(unaligned) *)y[r])[v];
  for (uint32_t i = 0; i < count; i++, steps += step_bytes(width)) {
    const uint16_t *quadruples = (const void *)steps; /* 4 times the column: times floats of a row, a place in bytes */
    const uint8_t *values = steps + 2 * GROUP;
    VECTOR values_again = KERNEL(repeat)(four_values(values, width, o.step));
    for (uint32_t r = 0; r < together; r++) {
      const void *x = (const uint8_t *)o.x + quadruples[first + r] * o.x_stride;
      VECTOR w = KERNEL(spread)(values_again, first + r);
      if (together == 1) w = KERNEL(splat)(one_value(values, first, width, o.step));
      for (uint32_t v = 0; v < vectors; v++) sums[r][v] += w * ((const KERNEL(unaligned) *)x)[v];
    }
  }
  for (uint32_t r = 0; r < together; r++)
    for (uint32_t v = 0; v < vectors; v++) ((KERNEL(unaligned) *)y[r])[v] = sums[r][v];
}

/* Sums of a whole group: with many columns they lie in the second-level cache. */
INLINE void KERNEL(fetch)(const uint16_t *rows, sparse_operands o, uint32_t floats) {
  for (uint32_t r = 0; r < GROUP; r++)
    for (uint32_t i = 0; i < floats; i += 16) __builtin_prefetch(o.y + rows[r] * o.y_stride + i, 1);
}

INLINE void KERNEL(block)(sparse_block b, sparse_operands o, uint32_t width, uint32_t together, uint32_t vectors) {
  for (uint32_t s = 0; s < b.segments; s++) {
    sparse_segment segment = segment_at(b.at, width);
    const uint8_t *steps = segment.steps;
    for (uint32_t g = 0; g < segment.groups; g++, steps += segment.count * step_bytes(width)) {
      const uint16_t *rows = segment.rows + g * GROUP;
      if (vectors * FLOATS >= PANEL && g + 1 < segment.groups) KERNEL(fetch)(rows + GROUP, o, vectors * FLOATS);
      KERNEL(rows)(steps, segment.count, rows, o, width, 0, together, vectors);
      if (together <= 2) KERNEL(rows)(steps, segment.count, rows, o, width, together, together, vectors);
      if (together == 1) KERNEL(rows)(steps, segment.count, rows, o, width, 2, 1, vectors);
      if (together == 1) KERNEL(rows)(steps, segment.count, rows, o, width, 3, 1, vectors);
    }
    b.at = segment.end;
  }
}

#undef SPREAD
#undef VECTOR
#undef FLOATS
#undef KERNEL
