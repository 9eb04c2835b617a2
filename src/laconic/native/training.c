/* The kernels of gating.h, each at the level that laconic.c has chosen. An application needs neither this file nor
   gating.c. */
#include "gating.h"

#ifdef LACONIC_LEVELS
#define LEVELS_OF(name) {gating_##name##_v2, gating_##name##_v3, gating_##name##_v4}
#define DECLARE(result, name, parameters, arguments) \
  result gating_##name##_v2 parameters;              \
  result gating_##name##_v3 parameters;              \
  result gating_##name##_v4 parameters;
#else
#define LEVELS_OF(name) {gating_##name##_native}
#define DECLARE(result, name, parameters, arguments) result gating_##name##_native parameters;
#endif

#define EXPORT(result, name, parameters, arguments)              \
  LACONIC_API result gating_##name parameters;                   \
  result gating_##name parameters {                              \
    static result(*const levels[]) parameters = LEVELS_OF(name); \
    return levels[chosen_level()] arguments;                     \
  }

GATING_KERNELS(DECLARE)
GATING_KERNELS(EXPORT)
