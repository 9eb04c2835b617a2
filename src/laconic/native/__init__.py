"""The native library, its sources and how it is reached: laconic.h is what it offers, plan.h what it reads.

library    finds and loads what has been compiled when laconic was installed
building   compiles it; run by the build hook
"""
