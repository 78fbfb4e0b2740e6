"""
State this package's version: the one place where it is written.

A constant and not a look into the installed metadata, which would cost a fifth of the import time.
"""

__version__ = "0.1.0"
