/* exp, log, tanh, sigmoid: vectors of float32, to 2 units in the last place or so; no C library. */
#ifndef LACONIC_MATHEMATICS_H
#define LACONIC_MATHEMATICS_H

#include "vector.h"

/* exp(x) = 2^n exp(r), |r| <= log(2) / 2, for |x| <= 87. The polynomial of degree 6 is that of the least relative
   error, 2e-9, with exp(0) = 1. NaN stays NaN. */
INLINE vec exp_bounded(vec x) {
  const vec magic = splat(12582912.0f + 127.0f); /* 1.5 * 2^23: adding it rounds to a whole number, in the low bits */
  vec shifted = x * splat(1.44269504088896341f) + magic;
  vec n = shifted - magic;
  vec r = x - n * splat(0.693359375f) + n * splat(2.12194440e-4f);
  vec p = splat(1.3843372e-3f);
  p = p * r + splat(8.3743975e-3f);
  p = p * r + splat(4.1668018e-2f);
  p = p * r + splat(1.6666428e-1f);
  p = p * r + splat(4.9999994e-1f);
  p = p * r + splat(1.00000003f);
  p = p * r + splat(1.0f);
  return p * (vec)(bits_of(shifted) << 23);
}

/* The same to 1e-6, for sums and gates: degree 5, and r in one step, whose error grows with |x|. */
INLINE vec exp_rough(vec x) {
  const vec magic = splat(12582912.0f + 127.0f);
  vec shifted = x * splat(1.44269504088896341f) + magic;
  vec r = x - (shifted - magic) * splat(0.693147181f), p = splat(8.2900588e-3f);
  p = p * r + splat(4.1899313e-2f);
  p = p * r + splat(0.16667648f);
  p = p * r + splat(0.49999139f);
  p = p * r + splat(0.9999997f);
  p = p * r + splat(1.0f);
  return p * (vec)(bits_of(shifted) << 23);
}

/* exp(x), 0 below -87.3, and finite: at most exp(88). NaN stays NaN. */
INLINE vec exp_of(vec x) {
  const vec low = splat(-87.3f);
  vec y = exp_bounded(most(low, least(splat(88.0f), x)));
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
  union {
    double d;
    uint64_t u;
  } bits = {x};
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
  union {
    uint64_t u;
    double d;
  } scale = {(uint64_t)((int)n + 1023) << 52};
  return p * scale.d;
}

/* sqrt(x), for x >= 0, by Newton's method from half the exponent: a compiler may call the C library for its own. */
INLINE float root_of(float x) {
  if (!(x > 0.0f)) return x; /* zero, and what is no number */
  union {
    double d;
    uint64_t u;
  } guess = {x};
  guess.u = (guess.u >> 1) + (511ull << 52) + (1ull << 51);
  for (int i = 0; i < 4; i++) guess.d = 0.5 * (guess.d + x / guess.d);
  return (float)guess.d;
}

#endif
