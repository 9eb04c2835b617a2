/* What takes the place of the C library's start code in laconic.dll, which calls nothing of that library: linked
   without it the file loads nothing but itself, on any Windows. */
#include <stdint.h>

uint32_t _tls_index; /* the linker asks for it; there are no thread-local variables */

int __stdcall _DllMainCRTStartup(void *module, uint32_t reason, void *reserved) {
  (void)module, (void)reason, (void)reserved;
  return 1; /* may be loaded */
}
