"""The gate's own routes, one file per group; `gate.py` finds the right one."""
