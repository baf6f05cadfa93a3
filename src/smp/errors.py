"""What a person sees when something is wrong, and files that are never half-written."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn


class UserError(Exception):
  """Bad input. The message is one line: what, where (file, row, field), what to do."""


def run(main: Callable[[], object]) -> NoReturn:
  """Run a script's ``main`` and turn user errors into one line and exit code 2.

  Ctrl-C ends with exit code 130, as shells expect. Anything else is a defect of
  this project and keeps its traceback.
  """
  try:
    main()
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)
  sys.exit(0)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
  """Yield a temporary path beside ``path`` that becomes ``path`` on success.

  The temporary file keeps the suffix of ``path`` (some writers add one if it is
  missing). On any failure, Ctrl-C included, it is removed and ``path`` is left as it
  was. A folder that cannot be written raises ``UserError``.
  """
  path = Path(path)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
      prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
  except OSError as error:
    raise UserError(
      f"{path}: cannot write here ({error.strerror}); choose another output folder"
    ) from error
  temporary = Path(name)
  try:
    yield temporary
    with open(temporary, "rb") as file:
      os.fsync(file.fileno())
    # Temporary files are private; the result should have the usual permissions.
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)
    os.replace(temporary, path)
  except OSError as error:
    raise UserError(
      f"{path}: cannot write ({error.strerror}); free some space or choose another "
      "output folder"
    ) from error
  finally:
    temporary.unlink(missing_ok=True)
