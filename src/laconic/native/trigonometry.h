/* Sine and cosine of vectors of float32; no C library. */
#ifndef LACONIC_TRIGONOMETRY_H
#define LACONIC_TRIGONOMETRY_H

#include "vector.h"

/* sin(x) and cos(x), each to 2e-7, for |x| up to 12,000: x less its nearest multiple of pi / 2, which is taken away in
   three parts so that no digits are lost (Cody and Waite), and the polynomials of Cephes (Moshier, sinf) for what is
   left. Beyond that, of no use but finite or NaN; infinity and NaN give NaN. */
INLINE void sine_cosine_of(vec x, vec *sine, vec *cosine) {
  vec shifted = x * splat(0.63661977236758134f) + splat(12582912.0f); /* 1.5 * 2^23: rounds to a whole number */
  vec n = shifted - splat(12582912.0f);
  vec r = x - n * splat(1.5703125f);
  r = r - n * splat(4.8375129699707031e-4f);
  r = r - n * splat(7.5497899548918822e-8f);
  vec z = r * r;
  vec s = ((splat(-1.9515295891e-4f) * z + splat(8.3321608736e-3f)) * z - splat(1.6666654611e-1f)) * z * r + r;
  vec c = (splat(2.443315711809948e-5f) * z - splat(1.388731625493765e-3f)) * z + splat(4.166664568298827e-2f);
  c = c * z * z - splat(0.5f) * z + splat(1.0f);
  ivec quarter = (ivec)shifted; /* its lowest bits count quarters of a turn */
  ivec swapped = (quarter & 1) != 0;
  ivec sine_sign = (quarter & 2) << 30, cosine_sign = ((quarter + 1) & 2) << 30;
  *sine = (vec)((ivec)choose(swapped, c, s) ^ sine_sign);
  *cosine = (vec)((ivec)choose(swapped, s, c) ^ cosine_sign);
}

#endif
