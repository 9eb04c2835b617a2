"""A captioner over HTTP: an API, a page to drop photos on, and limits that hold whatever arrives.

A photo's way: `connection` reads requests, `guard` turns away what other sites send, `uploads` reads a body within
limits of bytes and time, `decoding` makes pixels of it within limits of memory, and `batching` captions whatever has
come together in one call of the engine. Nothing of an upload is kept, and nothing is written to disk.

    settings.py     the limits
    app.py          the routes; `make_app` gives an ASGI application
    service.py      from photos to answers, with a bounded number in the making
    guard.py        which requests are answered at all, headers of every answer, counts
    uploads.py      bodies in memory; bodies.py says what one consists of
    decoding.py     photos to pixels, in threads
    batching.py     pixels to captions, in threads
    metrics.py      what is counted, in Prometheus' format
    openapi.py      what the API is; docs.py shows it to people
    page/           the page's files
    connection.py   one connection, which may not be slow for long
    server.py       listening, signals, the end
"""
