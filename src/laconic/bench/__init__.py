"""How fast a captioner is here: the engine beside the other ways to run the same weights, on one thread.

    given      what is captioned: photos, region features, or random numbers of their shape
    timing     process CPU time, interleaved
    rivals     PyTorch: eager, compiled, bfloat16, int8
    exported   ONNX Runtime and OpenVINO
    contest    the table of all of them, and what comes of it
    latency    a slim Transformer beside the dense one that it comes from

Torch is imported by `rivals`, `exported` and `latency` alone, which are imported where it is installed.
"""
