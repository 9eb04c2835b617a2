/* exp, log, tanh, sigmoid: vectors of float32, to 2 units in the last place or so; no C library. */
#ifndef LACONIC_MATHEMATICS_H
#define LACONIC_MATHEMATICS_H

#include "vector.h"

/* exp(x) = 2^n exp(r), |r| <= log(2) / 2, by the Taylor polynomial of degree 7; 0 below -87.3, and finite: at most
   exp(88). NaN stays NaN. */
INLINE vec exp_of(vec x) {
  const vec low = splat(-87.3f), high = splat(88.0f);
  vec bounded = choose(x < low, low, choose(x > high, high, x));
  const vec magic = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
  vec n = (bounded * splat(1.44269504088896341f) + magic) - magic;
  vec r = bounded - n * splat(0.693359375f) + n * splat(2.12194440e-4f);
  vec p = splat(1.0f / 5040.0f);
  p = p * r + splat(1.0f / 720.0f);
  p = p * r + splat(1.0f / 120.0f);
  p = p * r + splat(1.0f / 24.0f);
  p = p * r + splat(1.0f / 6.0f);
  p = p * r + splat(0.5f);
  p = p * r + splat(1.0f);
  p = p * r + splat(1.0f);
  ivec exponent = (__builtin_convertvector(n, ivec) + 127) << 23;
  vec y = p * (vec)exponent;
  return choose(x < low, splat(0.0f), y);
}

INLINE vec sigmoid_of(vec x) { return splat(1.0f) / (splat(1.0f) + exp_of(-x)); }

/* By exp where that loses no digits, and by the odd Taylor polynomial of degree 9 near zero, where it would. */
INLINE vec tanh_of(vec x) {
  vec large = splat(1.0f) - splat(2.0f) / (splat(1.0f) + exp_of(x + x));
  vec s = x * x;
  vec small = splat(62.0f / 2835.0f);
  small = small * s - splat(17.0f / 315.0f);
  small = small * s + splat(2.0f / 15.0f);
  small = small * s - splat(1.0f / 3.0f);
  small = small * s * x + x;
  return choose((s < splat(0.04f)), small, large);
}

/* log(x) in double, for x > 0 finite: exponent, and 2 atanh((m - 1) / (m + 1)) of the mantissa. */
INLINE double log_of(double x) {
  union { double d; uint64_t u; } bits = {x};
  int shift = 0;
  if (x < 2.2250738585072014e-308) bits.d = x * 18014398509481984.0, shift = -54;
  int exponent = (int)(bits.u >> 52 & 2047) - 1023 + shift;
  bits.u = (bits.u & 0xFFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
  double m = bits.d;
  if (m > 1.4142135623730951) m *= 0.5, exponent++;
  double z = (m - 1.0) / (m + 1.0), s = z * z, p = 0.0;
  for (int k = 21; k >= 1; k -= 2) p = p * s + 1.0 / k;
  return exponent * 0.6931471805599453 + 2.0 * z * p;
}

/* exp(x) in double, |x| < 700. */
INLINE double exp_double(double x) {
  double n = (double)(int)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5));
  double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10, p = 1.0;
  for (int k = 14; k >= 1; k--) p = 1.0 + p * r / k;
  union { uint64_t u; double d; } scale = {(uint64_t)((int)n + 1023) << 52};
  return p * scale.d;
}

#endif
