/* Gaps between the parts of a workspace that nothing may touch: for tests alone, which compile with LACONIC_GUARD and
   -fsanitize=address. Without it they take no room and no time. */
#ifndef LACONIC_GUARD_H
#define LACONIC_GUARD_H

#include <stddef.h>

#include "inline.h"

#ifdef LACONIC_GUARD
#define GUARD_BYTES 256u
void __asan_poison_memory_region(const volatile void *at, size_t bytes);
void __asan_unpoison_memory_region(const volatile void *at, size_t bytes);
INLINE void forbid(const void *at, size_t bytes) { __asan_poison_memory_region(at, bytes); }
INLINE void permit(const void *at, size_t bytes) { __asan_unpoison_memory_region(at, bytes); }
#else
#define GUARD_BYTES 0u
INLINE void forbid(const void *at, size_t bytes) { (void)at, (void)bytes; }
INLINE void permit(const void *at, size_t bytes) { (void)at, (void)bytes; }
#endif

#endif
