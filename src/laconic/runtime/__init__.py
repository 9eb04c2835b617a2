"""The engine: a packed captioner becomes a plan, and a plan is run without torch.

    operations  what a program can say: the table of operations and their arguments
    program     writing a plan: buffers, matrices, operations, arena
    plan        a plan as bytes, taken apart again
    matrices    weights to the layouts that kernels multiply by
    planning    a packed captioner -> a plan; encoders and captioners have a file of rules each
    numpy_path  runs a plan in numpy, for where there is no compiled library; the reference for it

Everything clever happens when a plan is made. What runs it (laconic.native, or numpy_path) does as it is told.
"""
