"""The engine: a packed captioner becomes a plan, and a plan is run without torch.

    operations   what a program can say: the table of operations and their arguments
    program      writing a plan: buffers, matrices, operations, arena; `allocation` has buffers share memory
    plan         a plan as bytes, taken apart again
    matrices     weights to the layouts that kernels multiply by: `sparse_layout`, `dense_layout`, `tables` of word
                 vectors, and what `values` become; `weights` cuts and joins them as rules need it
    planning     a packed captioner -> a plan, by the rules of `rules_encoders` (in the layers of `encoder_maps`),
                 `rules_recurrent`, `rules_transformer` (`relations`: of boxes) and `rules_aoanet` (in those of
                 `decoder_layers`)
    native_path  runs a plan in the native library
    numpy_path   runs a plan in numpy, for where there is no compiled library; the reference for it. Its operations:
                 `numpy_encoders`, `numpy_recurrent`, `numpy_transformer`, over the tables of `numpy_work`
    inputs       the images that either takes

Everything clever happens when a plan is made. What runs it does as it is told.
"""
