"""Whole jobs from files to files: what the command line, the browser app and batch runs call.

A workflow takes a typed record of what is wanted and a `Progress`, and returns a typed record of
what came of it. It prints nothing and knows no option of a command; errors are `BloodfilmError`.
One module per job: analyze, evaluate, audit, repair, split, overlaps, transfer, plan, train,
export, convert, download, render.
"""
