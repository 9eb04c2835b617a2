"""A packed captioner in a form that others run: a page, ONNX files, sources for an application.

table.py         the targets; `export` writes one
web.py           a page that captions in the browser; its files lie in web/
onnx.py          ONNX files
application.py   a plan and the C library's sources
"""
