/* The kernels of matrix products on their own, for the tests of the folder above. */
#include "linear.h"

void product(const uint8_t *arena, const plan_matrix *m, const float *x, size_t x_stride, float *y, size_t y_stride,
             uint32_t columns) {
  plan_view plan = {.matrices = m, .arena = arena};
  multiply(&plan, m, x, x_stride, y, y_stride, columns);
}

int sound(const uint8_t *arena, const plan_matrix *m) {
  plan_view plan = {.matrices = m, .arena = arena};
  return check_matrix(&plan, m);
}

/* So that nothing is left unused. */
operation_run *const RUN = run_linear;
operation_check *const CHECK = check_linear;
