/* How the boxes of an image lie as seen from each other: laconic.models.box_geometry (Herdade et al. 2019, eq. 6). */
#ifndef LACONIC_GEOMETRY_H
#define LACONIC_GEOMETRY_H

#include "logarithm.h"
#include "run.h"
#include "trigonometry.h"

#define MEASURES 4u    /* of a pair of boxes: distances and ratios of sides, in both directions, as logarithms */
#define FREQUENCIES 8u /* of each measure, a sine and a cosine each */
#define RELATION_ROWS (2 * MEASURES * FREQUENCIES)
#define CLOSEST 1e-3f /* shorter sides and distances are all alike */

static const float FREQUENCY[FREQUENCIES] = {/* 1000 ** (-k / 8) */
                                             1.0f,         0.42169650f,  0.17782794f,   0.074989421f,
                                             0.031622777f, 0.013335214f, 0.0056234133f, 0.0023713737f};

typedef struct { /* of LANES pairs: centres and sides of the box that looks and of the one it looks at, x then y */
  float centre[2][LANES], side[2][LANES], other_centre[2][LANES], other_side[2][LANES];
} box_pairs;

INLINE float at_least(float x, float low) { return x < low ? low : x; } /* NaN stays */

INLINE void take_pair(box_pairs *to, uint32_t lane, const float *box, const float *other, float plus) {
  for (uint32_t axis = 0; axis < 2; axis++) {
    to->centre[axis][lane] = (box[axis] + box[axis + 2]) * 0.5f;
    to->side[axis][lane] = at_least(box[axis + 2] - box[axis] + plus, CLOSEST);
    to->other_centre[axis][lane] = (other[axis] + other[axis + 2]) * 0.5f;
    to->other_side[axis][lane] = at_least(other[axis + 2] - other[axis] + plus, CLOSEST);
  }
}

INLINE void measure_pairs(const box_pairs *pairs, vec *measures) {
  for (uint32_t axis = 0; axis < 2; axis++) {
    vec side = load(pairs->side[axis]), apart = load(pairs->centre[axis]) - load(pairs->other_centre[axis]);
    vec distance = (vec)((ivec)apart & 0x7FFFFFFF) / side;
    measures[axis] = logarithm_of(choose(distance < splat(CLOSEST), splat(CLOSEST), distance));
    measures[2 + axis] = logarithm_of(side / load(pairs->other_side[axis]));
  }
}

/* y, boxes, plus_one: column j P + i of y is how box i sees box j, its 32 sines, then its 32 cosines. `boxes` are
   constants of the plan, or NONE for those of the image. */
static void run_relate(const laconic_run *run, const uint32_t *a) {
  table y = table_of(run, a[0], 0);
  const float *boxes = a[1] == NONE ? run->boxes : constants(&run->plan, a[1]);
  uint32_t count = run->positions, i = 0, j = 0;
  for (uint32_t c = 0; c < y.columns; c += LANES) {
    box_pairs pairs;
    vec measures[MEASURES];
    for (uint32_t lane = 0; lane < LANES; lane++) { /* behind the last pair, the last box once more */
      take_pair(&pairs, lane, boxes + 4 * i, boxes + 4 * j, a[2] ? 1.0f : 0.0f);
      if (i + 1 < count) i++;
      else if (j + 1 < count) i = 0, j++;
    }
    measure_pairs(&pairs, measures);
    for (uint32_t m = 0; m < MEASURES; m++)
      for (uint32_t f = 0; f < FREQUENCIES; f++) {
        vec sine, cosine;
        sine_cosine_of(splat(100.0f) * measures[m] * splat(FREQUENCY[f]), &sine, &cosine);
        store(y.at + (m * FREQUENCIES + f) * y.stride + c, sine);
        store(y.at + (RELATION_ROWS / 2 + m * FREQUENCIES + f) * y.stride + c, cosine);
      }
  }
}

static int check_relate(const plan_view *plan, const uint32_t *a) {
  const plan_header *h = plan->header;
  if (!has_space(plan, a[0], PAIRS) || !has_rows(plan, a[0], 0, RELATION_ROWS) || a[2] > 1) return 0;
  if (a[1] == NONE) return !h->side && h->boxes != NONE;
  return h->side && has_constants(plan, a[1], (uint64_t)h->positions * 4);
}

#endif
