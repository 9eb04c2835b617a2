"""Captions for folders of millions of photos, by any number of processes that share nothing but a file system.

    listing   what a folder holds, lazily and in a stable order
    tars      the members of a tar file
    shards    the listing on disk, in shards of a few images
    once      files that appear once
    claims    which process works on which shard, and which processes are alive
    job       the state of the work, beside the output
    worker    shards to captions
    merge     results of all shards to one file
    ray_job   the same worker as a Ray Data job

No torch here: a captioner is whatever captions pixels.
"""
