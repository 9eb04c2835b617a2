/* Small functions that disappear into those that call them. */
#ifndef LACONIC_INLINE_H
#define LACONIC_INLINE_H

#define INLINE static inline __attribute__((always_inline, unused))

#endif
