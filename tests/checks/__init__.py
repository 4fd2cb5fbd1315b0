"""What the tests know about notebooks: each check yields complaints, and has a test that plants faults.

`python tools/notebooks.py lint` runs all of them, guidelines included.
"""
