"""The native library, its sources and how it is reached: laconic.h is what it offers, plan.h what it reads.

    library    finds and loads what has been compiled when laconic was installed
    building   compiles it; run by the build hook

Sources, each including what it builds on:

    laconic.c processor.h levels.h        public functions; which instruction set to use
    check.h flow.h view.h                 whether a plan is sound: its tables, and what its programs read and write
    engine.c run.h workspace.h guard.h    runs the programs of a plan, in memory that the caller gives
    search.h best.h                       greedy and beam search
    vector.h mathematics.h logarithm.h trigonometry.h transpose.h inline.h   numbers, several at a time
    linear.h sparse.h dense.h (their kernels) values.h tables.h   matrices, and tables of word vectors
    convolution.h depthwise.h pooling.h window.h                  operations of encoders
    recurrent.h attention.h                                       of recurrent captioners
    transformer.h layer_norm.h geometry.h dot_attention.h word_attention.h   of transformers
    training.c gating.c gating.h          what Supermask Pruning adds to a training step
    windows.c                             what Windows' start-up code would bring
"""
