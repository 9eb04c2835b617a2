/* log of vectors of float32, to 1 unit in the last place or so; no C library. */
#ifndef LACONIC_LOGARITHM_H
#define LACONIC_LOGARITHM_H

#include "vector.h"

/* log(x) for x > 0 that is no subnormal: x = 2^e m with m from sqrt(1/2) to sqrt(2), and the polynomial of Cephes
   (Moshier, logf) for log(m). NaN and infinity stay as they are. */
INLINE vec logarithm_of(vec x) {
  ivec bits = (ivec)x, e = (bits - 0x3F3504F3) >> 23;
  vec exponent = __builtin_convertvector(e, vec), f = (vec)(bits - (e << 23)) - splat(1.0f), s = f * f;
  vec p = splat(7.0376836292e-2f);
  p = p * f - splat(1.1514610310e-1f);
  p = p * f + splat(1.1676998740e-1f);
  p = p * f - splat(1.2420140846e-1f);
  p = p * f + splat(1.4249322787e-1f);
  p = p * f - splat(1.6668057665e-1f);
  p = p * f + splat(2.0000714765e-1f);
  p = p * f - splat(2.4999993993e-1f);
  p = p * f + splat(3.3333331174e-1f);
  vec tail = p * f * s - splat(0.5f) * s - exponent * splat(2.12194440e-4f);
  vec y = (f + tail) + exponent * splat(0.693359375f);
  return choose(x < splat(__builtin_inff()), y, x);
}

#endif
