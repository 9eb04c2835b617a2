/* Which level of x86-64 this processor and its operating system have: 0, 1, 2 for v2, v3, v4. */
#ifndef LACONIC_PROCESSOR_H
#define LACONIC_PROCESSOR_H

#include <stdint.h>

static void ask_processor(uint32_t leaf, uint32_t sub, uint32_t *b, uint32_t *c) {
  uint32_t a = leaf, d;
  *c = sub;
  __asm__ volatile("cpuid" : "+a"(a), "=b"(*b), "+c"(*c), "=d"(d));
}

static int processor_level(void) {
  const uint32_t FMA = 1u << 12, MOVBE = 1u << 22, OSXSAVE = 1u << 27, AVX = 1u << 28, F16C = 1u << 29;
  const uint32_t BMI1 = 1u << 3, AVX2 = 1u << 5, BMI2 = 1u << 8, LZCNT = 1u << 5;
  const uint32_t V4 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31; /* AVX-512 F, DQ, CD, BW, VL */
  uint32_t b, c, saved, high, wanted = FMA | MOVBE | OSXSAVE | AVX | F16C;
  ask_processor(1, 0, &b, &c);
  if ((c & wanted) != wanted) return 0;
  __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if ((saved & 6) != 6) return 0; /* the system saves 256-bit registers */
  ask_processor(0x80000001u, 0, &b, &c);
  if (!(c & LZCNT)) return 0;
  ask_processor(7, 0, &b, &c);
  if ((b & (BMI1 | AVX2 | BMI2)) != (BMI1 | AVX2 | BMI2)) return 0;
  return (b & V4) == V4 && (saved & 0xE6) == 0xE6 ? 2 : 1;
}

#endif
