"""Holds a file until it is killed, as another program might: SQLite's write lock of a database, or the lock of a file."""
import sqlite3
import sys
import time

how, path = sys.argv[1:]
if how == "write":
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("begin immediate")
else:
    import fcntl

    held = open(path, "w")
    fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
