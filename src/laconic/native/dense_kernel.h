/* A tile of dense rows times vectors of one size. No include guard: dense.h includes it once per size, as sparse.h
   does with sparse_kernel.h. */

typedef float KERNEL(unaligned) __attribute__((vector_size(4 * FLOATS), aligned(4), may_alias));

/* `together` rows of a tile, from `first` on, times `vectors` vectors of `count` rows of x: the first three known
   beforehand. Rows from `o.rows` on only fill up the tile. */
INLINE void KERNEL(rows)(dense_operands o, uint32_t first, uint32_t together, uint32_t vectors) {
  VECTOR sums[TILE][4];
  for (uint32_t r = 0; r < together; r++)
    for (uint32_t v = 0; v < vectors; v++) sums[r][v] = (VECTOR){0};
  const float *w = o.weights + first, *x = o.x;
  for (uint32_t k = 0; k < o.count; k++, w += TILE, x += o.x_stride) {
    VECTOR from[4];
    for (uint32_t v = 0; v < vectors; v++) from[v] = *(const KERNEL(unaligned) *)(x + v * FLOATS);
    for (uint32_t r = 0; r < together; r++) {
      VECTOR spread = w[r] - (VECTOR){0};
      for (uint32_t v = 0; v < vectors; v++) sums[r][v] += spread * from[v];
    }
  }
  for (uint32_t r = 0; r < together; r++)
    for (uint32_t v = 0; v < vectors && first + r < o.rows; v++)
      *(KERNEL(unaligned) *)(o.y + (first + r) * o.y_stride + v * FLOATS) += sums[r][v];
}

INLINE void KERNEL(tile)(dense_operands o, uint32_t together, uint32_t vectors) {
  for (uint32_t first = 0; first < TILE; first += together) KERNEL(rows)(o, first, together, vectors);
}

#undef VECTOR
#undef FLOATS
#undef KERNEL
