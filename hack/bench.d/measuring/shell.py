"""Programs that prepare and check; what is measured is started by `measure`."""

import subprocess
import sys


class Failure(Exception):
    """Something without which no figure may be printed."""


def run(*command, **options):
    """Runs a program to its end and returns what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        raise Failure(f"{' '.join(words)[:400]} ended with {done.returncode}: {done.stderr[-3000:]}")
    return done.stdout.strip()


def say(text):
    """Tells the person who waits what is going on."""
    print(text, file=sys.stderr, flush=True)
