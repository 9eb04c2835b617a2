/* The arithmetic of gating.h, compiled once per level of x86-64. */
#include "gating.h"

#include <string.h>

#define DECLARE(result, name, parameters, arguments) result LEVEL(gating_##name) parameters;
GATING_KERNELS(DECLARE)

/* exp(-|x|), by exp(k log 2 + r) = 2^k exp(r), |r| <= log(2) / 2, and the series of exp: right to 2e-7 of itself, 0
   from 2e-38 on. In operations that any processor has for vectors, so no call of the C library's. */
static inline float exp_minus_abs(float x) {
  const float round = 3 << 22; /* adding it to a small number leaves no place for a fraction */
  float y = -__builtin_fabsf(x);
  float z = y > -87 ? y : -87;
  float k = (z * 1.44269504f + round) - round;
  float r = z - k * 0.693359375f + k * 2.12194440e-4f; /* log 2 in two parts, the first exact times any k */
  float series = 1 / 120.f + r * (1 / 720.f + r / 5040.f);
  series = 1 + r * (1 + r * (1 / 2.f + r * (1 / 6.f + r * (1 / 24.f + r * series))));
  uint32_t bits = (uint32_t)((int32_t)k + 127) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return y > -87 ? series * power : y < 0 ? 0 : y; /* what is not a number stays so */
}

static inline float sigmoid(float x) {
  float e = exp_minus_abs(x);
  return (x < 0 ? e : 1) / (1 + e);
}

/* Of the sigmoid: s (1 - s), without the cancellation. */
static inline float slope(float x) {
  float e = exp_minus_abs(x);
  return e / ((1 + e) * (1 + e));
}

static inline float widen(bfloat16 x) {
  uint32_t bits = (uint32_t)x << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}

/* To the nearest, and to even from the middle. */
static inline bfloat16 narrow(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* SplitMix64 (Steele, Lea, Flood 2014) of counters that begin at `first`. */
void LEVEL(gating_mix)(size_t n, const uint64_t *restrict counters, uint64_t *restrict words, uint64_t first) {
  for (size_t i = 0; i < n; i++) {
    uint64_t z = (counters[i] + first) * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    words[i] = z ^ z >> 31;
  }
}

void LEVEL(gating_draw)(size_t n, const float *restrict gates, const int16_t *restrict noise, uint8_t *restrict keep) {
  for (size_t i = 0; i < n; i++) keep[i] = noise[i] - 65536 * sigmoid(gates[i]) < -32768.5f;
}

void LEVEL(gating_multiply_float)(size_t n, const float *restrict x, const uint8_t *restrict keep,
                                  float *restrict out) {
  for (size_t i = 0; i < n; i++) out[i] = x[i] * keep[i];
}

void LEVEL(gating_multiply_to_bfloat16)(size_t n, const float *restrict x, const uint8_t *restrict keep,
                                        bfloat16 *restrict out) {
  for (size_t i = 0; i < n; i++) out[i] = narrow(x[i] * keep[i]);
}

void LEVEL(gating_multiply_bfloat16)(size_t n, const bfloat16 *restrict x, const uint8_t *restrict keep,
                                     float *restrict out) {
  for (size_t i = 0; i < n; i++) out[i] = widen(x[i]) * keep[i];
}

void LEVEL(gating_gradients_float)(size_t n, const float *restrict grad, const float *restrict weight,
                                   const float *restrict gates, const uint8_t *restrict keep,
                                   float *restrict grad_weight, float *restrict grad_gates) {
  for (size_t i = 0; i < n; i++) {
    grad_weight[i] = grad[i] * keep[i];
    grad_gates[i] = grad[i] * weight[i] * slope(gates[i]);
  }
}

void LEVEL(gating_gradients_bfloat16)(size_t n, const bfloat16 *restrict grad, const float *restrict weight,
                                      const float *restrict gates, const uint8_t *restrict keep,
                                      float *restrict grad_weight, float *restrict grad_gates) {
  for (size_t i = 0; i < n; i++) {
    float above = widen(grad[i]);
    grad_weight[i] = above * keep[i];
    grad_gates[i] = above * weight[i] * slope(gates[i]);
  }
}

/* Tells whether all of grad is finite then. */
int64_t LEVEL(gating_add_slope)(size_t n, const float *restrict gates, float *restrict grad, float factor) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; i++) {
    float sum = grad[i] + factor * slope(gates[i]);
    uint32_t bits;
    memcpy(&bits, &sum, sizeof bits);
    bits &= 0x7fffffff; /* those of |sum|, in the order of |sum| */
    largest = bits > largest ? bits : largest;
    grad[i] = sum;
  }
  return largest < 0x7f800000;
}

int64_t LEVEL(gating_count_open)(size_t n, const float *restrict gates) {
  int64_t open = 0;
  for (size_t i = 0; i < n; i++) open += gates[i] > 0;
  return open;
}
