/* The operations of transformers: layer norm, geometry of boxes, attention with scaled products. */
#ifndef LACONIC_TRANSFORMER_H
#define LACONIC_TRANSFORMER_H

#include "dot_attention.h"
#include "geometry.h"
#include "layer_norm.h"
#include "word_attention.h"

#endif
