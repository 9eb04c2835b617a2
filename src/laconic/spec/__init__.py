"""What a captioner is, without torch: whatever reads or runs one builds on this room alone.

    model       which encoder and which captioner: the configuration
    encoders    one row of facts per encoder: channels, normalisation
    captioners  the options of each captioner, and what each reads
    pixels      from the bytes of an image to an encoder's numbers
    tokens      the ids that are not words
    packed      a captioner in a packed file: its configuration, checked and written in one place
    manifest    the names of files in the folder of a run

Knows no modules: which of them belongs to a row is the business of laconic.models.
"""
