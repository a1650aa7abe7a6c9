"""Running one command: its exit status, and how its failures are told."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from ..errors import OAuthGateError
from ..stepping import run
from .output import Notes, Output, Problem
from .parser import make_parser, spelt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status: 0 fine, 1 a problem, 2 not understood (`SystemExit`)."""
    args = make_parser().parse_args(spelt(sys.argv[1:] if arguments is None else arguments))
    out = Output(json=args.json)
    logger = logging.getLogger("oauthgate")
    notes = Notes(out)
    logger.addHandler(notes)
    logger.propagate = False
    try:
        status: int = run(args.run(args, out))
    except (Problem, OAuthGateError) as error:
        return _failed(out, str(error))
    except BrokenPipeError:
        # Whoever read the list has seen enough; nothing may be flushed into the broken pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        out.note("interrupted; what was done is done, and running it again goes on")
        return 130
    except Exception as error:
        # Its text may hold anything; where it happened is enough to report it.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return _failed(out, f"this is a defect, please report it: {type(error).__name__} in {place}")
    finally:
        logger.removeHandler(notes)
        logger.propagate = True
    return status


def _failed(out: Output, message: str) -> int:
    out.note(f"oauthgate: {message}")
    out.document({"error": message})
    return 1
